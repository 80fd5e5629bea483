"""A Llama in a Hugging Face folder as the one GGUF file that llama.cpp serves: weights, tokenizer and chat template.

Matrices are rounded to a format of llama.cpp's (Q8_0: 32 weights share a scale), norms and biases stay in 32 bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize

from stepwell.errors import DistillError
from stepwell.quantize.weights import Floats, read, told

GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "Q5_1": gguf.LlamaFileType.MOSTLY_Q5_1,
    "Q5_0": gguf.LlamaFileType.MOSTLY_Q5_0,
    "Q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
"""The formats that need nothing but the weights."""


def to_gguf(folder: Path, out: Path, kind: str = "Q8_0", *, name: str = "") -> Path:
    """Write `out`, whole or not at all; `name` is the model's in the file, the folder's by default.

    Raises DistillError for another architecture than Llama's, a tokenizer other than byte-level BPE, or a width that
    the format does not fit.
    """
    if kind not in FILE_TYPES:
        raise DistillError(f"no format {kind!r}: {', '.join(FILE_TYPES)}")
    config = config_of(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    writer = gguf.GGUFWriter(part, "llama")
    add_shape(writer, config, name or folder.name)
    writer.add_file_type(FILE_TYPES[kind])
    add_tokenizer(writer, folder, config)
    for each, weight in read(folder):
        if each != "lm_head.weight" or not config["tie_word_embeddings"]:
            add_weight(writer, gguf_name(each, folder), turned(each, weight, config), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(out)
    return out


def config_of(folder: Path) -> dict[str, Any]:
    """config.json with what it leaves out filled in. Raises DistillError where it is no plain Llama's."""
    config = told(folder / "config.json")
    if config.get("model_type") != "llama":
        kind = config.get("model_type")
        raise DistillError(f"is a {kind!r} model; only Llama's shape is exported so far", file=str(folder))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise DistillError(f"has scaled positions ({rope}); only plain ones are exported so far", file=str(folder))
    heads = config["num_attention_heads"]
    usual = {
        "num_key_value_heads": heads,
        "head_dim": config["hidden_size"] // heads,
        "rope_theta": rope.get("rope_theta", 10_000.0),
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    }
    return {**usual, **{key: value for key, value in config.items() if value is not None}}


def add_shape(writer: gguf.GGUFWriter, config: Mapping[str, Any], name: str) -> None:
    """Sizes of the model."""
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any]) -> None:
    """Tokens, merges, special ids and the chat template."""
    held = told(folder / "tokenizer.json")
    model = held.get("model") or {}
    if model.get("type") != "BPE" or "ByteLevel" not in str(held.get("pre_tokenizer")):
        raise DistillError("is no byte-level BPE; only that is exported so far", file=str(folder / "tokenizer.json"))
    special = {each["id"]: each["content"] for each in held.get("added_tokens", ()) if each.get("special")}
    names = {at: token for token, at in model["vocab"].items()}
    names |= {each["id"]: each["content"] for each in held.get("added_tokens", ())}
    rows = range(config["vocab_size"])  # little data makes few merges: the rest of the rows stand for nothing
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe" if "Regex" in str(held["pre_tokenizer"]) else "gpt-2")
    writer.add_token_list([names.get(at, f"<unused{at}>") for at in rows])
    writer.add_token_types([type_of(at, names, special) for at in rows])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    add_ends(writer, config)
    template = template_of(folder)
    if template:
        writer.add_chat_template(template)


def type_of(at: int, names: Mapping[int, str], special: Iterable[int]) -> gguf.TokenType:
    """What a token is to llama.cpp."""
    if at not in names:
        return gguf.TokenType.UNUSED
    return gguf.TokenType.CONTROL if at in special else gguf.TokenType.NORMAL


def add_ends(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """The tokens that begin, end and pad a text."""
    ends = config.get("eos_token_id")
    end = ends[0] if isinstance(ends, list) else ends
    for value, add in (
        (config.get("bos_token_id"), writer.add_bos_token_id),
        (end, writer.add_eos_token_id),
        (config.get("pad_token_id"), writer.add_pad_token_id),
    ):
        if value is not None:
            add(value)
    writer.add_add_bos_token(config.get("bos_token_id") is not None)
    writer.add_add_eos_token(False)  # noqa: FBT003 - the package's own signature


def template_of(folder: Path) -> str:
    """The chat template, in its own file or in tokenizer_config.json; empty where there is none."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = told(config).get("chat_template", "") if config.is_file() else ""
    return template if isinstance(template, str) else ""


def gguf_name(name: str, folder: Path) -> str:
    """llama.cpp's name of a weight. Raises DistillError for one that it has no place for."""
    match name.removeprefix("model.").split("."):
        case ["embed_tokens", "weight"]:
            return "token_embd.weight"
        case ["norm", "weight"]:
            return "output_norm.weight"
        case ["lm_head", "weight"]:
            return "output.weight"
        case ["layers", layer, *part, kind] if ".".join(part) in GGUF_NAMES:
            return f"blk.{layer}.{GGUF_NAMES['.'.join(part)]}.{kind}"
    raise DistillError(f"has the weight {name!r}, which a Llama has not", file=str(folder))


def turned(name: str, weight: Floats, config: Mapping[str, Any]) -> Floats:
    """llama.cpp turns neighbours where Hugging Face turns halves: the rows of queries and keys change places."""
    part = name.split(".")[-2]
    if part not in {"q_proj", "k_proj"}:
        return weight
    heads = config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
    split = weight.reshape(heads, 2, config["head_dim"] // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


def add_weight(writer: gguf.GGUFWriter, name: str, weight: Floats, kind: str) -> None:
    """One tensor; only matrices are rounded."""
    if weight.ndim == 1 or kind == "F32":
        writer.add_tensor(name, np.ascontiguousarray(weight))
        return
    wanted = gguf.GGMLQuantizationType[kind]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    if weight.shape[-1] % block:
        raise DistillError(
            f"{name} is {weight.shape[-1]} wide, and {kind} takes {block} at a time: choose another width"
        )
    if kind == "F16":
        writer.add_tensor(name, weight.astype(np.float16))
    else:
        writer.add_tensor(name, quantize(np.ascontiguousarray(weight), wanted), raw_dtype=wanted)
