"""Write a checkpoint as it ships: `python -m recipes.writer.export RUN models/house-writer`.

A Hugging Face folder with bfloat16 weights, and one GGUF file in Q8_0 for the embedded engine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.writer import tokenizer
from recipes.writer.model import Shape, Writer

NAME = "house-writer"
CHAT_TEMPLATE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "{%- if message['content'] is string -%}{%- set last.text = message['content'] -%}"
    "{%- else -%}{%- set last.text = message['content'][0]['text'] -%}{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
    "{{ bos_token }}{{ last.text }}<sep>"
)
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


def loaded(run: Path) -> tuple[Writer, tokenizer.Tokenizer]:
    """The best checkpoint of a run and its tokenizer."""
    held = torch.load(run / "best.pt", weights_only=True)
    model = Writer(Shape(**held["shape"]))
    model.load_state_dict(held["model"])
    return model.eval(), tokenizer.load(run)


def from_folder(folder: Path) -> tuple[Writer, tokenizer.Tokenizer]:
    """The model that a Hugging Face folder holds."""
    config = json.loads((folder / "config.json").read_text())
    shape = Shape(
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        context=config["max_position_embeddings"],
    )
    weights = load_file(folder / "model.safetensors")
    model = Writer(shape)
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in weights.items()})
    return model.eval(), tokenizer.load(folder)


def write_folder(model: Writer, run: Path, out: Path) -> None:
    """The Hugging Face folder: what `AutoModelForCausalLM` and `AutoTokenizer` read."""
    out.mkdir(parents=True, exist_ok=True)
    shape = model.shape
    weights = {f"model.{name}": weight.to(torch.bfloat16).contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(run / "tokenizer.json", out / "tokenizer.json")
    write_json(out / "config.json", config_of(shape))
    ends: dict[str, Any] = {"bos_token_id": tokenizer.BOS, "eos_token_id": tokenizer.EOS, "pad_token_id": tokenizer.PAD}
    write_json(out / "generation_config.json", {**ends, "do_sample": False, "max_length": shape.context})
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "additional_special_tokens": ["<sep>"]}
    write_json(out / "special_tokens_map.json", named)
    write_json(
        out / "tokenizer_config.json",
        {
            **named,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def config_of(shape: Shape) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": tokenizer.BOS,
        "eos_token_id": tokenizer.EOS,
        "pad_token_id": tokenizer.PAD,
        "torch_dtype": "bfloat16",
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_gguf(model: Writer, words: tokenizer.Tokenizer, path: Path) -> None:
    """The GGUF file: matrices in Q8_0, norms in 32 bits, the tokenizer and the chat template inside."""
    shape = model.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.theta)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    add_tokenizer(writer, words, shape.vocabulary)
    for name, weight in model.state_dict().items():
        add_tensor(writer, gguf_name(name), turned(name, weight, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, words: tokenizer.Tokenizer, num_tokens: int) -> None:
    """Tokens, merges and special ids."""
    model = json.loads(words.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    control = len(tokenizer.SPECIAL)
    types = [gguf.TokenType.CONTROL if at < control else gguf.TokenType.NORMAL for at in range(len(tokens))]
    spare = range(len(tokens), num_tokens)  # little data makes few merges: the rest of the rows stand for nothing
    tokens += [f"<unused{at}>" for at in spare]
    types += [gguf.TokenType.UNUSED for _ in spare]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.BOS)
    writer.add_eos_token_id(tokenizer.EOS)
    writer.add_pad_token_id(tokenizer.PAD)
    writer.add_add_bos_token(True)  # noqa: FBT003 - the package's own signature
    writer.add_add_eos_token(False)  # noqa: FBT003
    writer.add_chat_template(CHAT_TEMPLATE)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a weight."""
    if name == "embed_tokens.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, layer, part = name.split(".", 2)
    return f"blk.{layer}.{GGUF_NAMES[part.removesuffix('.weight')]}.weight"


def turned(name: str, weight: Tensor, shape: Shape) -> Tensor:
    """llama.cpp turns neighbours where Hugging Face turns halves: the rows of queries and keys change places."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weight
    size = shape.hidden // shape.heads
    split = weight.view(shape.heads, 2, size // 2, shape.hidden)
    return split.transpose(1, 2).reshape(shape.hidden, shape.hidden)


def add_tensor(writer: gguf.GGUFWriter, name: str, weight: Tensor) -> None:
    """One tensor; matrices are quantized."""
    values = weight.float().numpy().astype(np.float32)
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    model, words = loaded(given.run)
    write_folder(model, given.run, given.out)
    write_gguf(model, words, given.out / f"{NAME}.Q8_0.gguf")
    print(f"{sum(file.stat().st_size for file in given.out.iterdir()) / 1e6:.1f} MB in {given.out}")


if __name__ == "__main__":
    main()
