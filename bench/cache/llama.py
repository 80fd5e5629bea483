"""all-MiniLM-L6-v2 as a GGUF file for llama.cpp, made from the same weights: the peer of `embedding.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import xllamacpp
from numpy.typing import NDArray

from stepwell.engines import minilm

SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
OUTER = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm.": "token_embd_norm.",
}
INNER = {
    "attention.self.query.": "attn_q.",
    "attention.self.key.": "attn_k.",
    "attention.self.value.": "attn_v.",
    "attention.output.dense.": "attn_output.",
    "attention.output.LayerNorm.": "attn_output_norm.",
    "intermediate.dense.": "ffn_up.",
    "output.dense.": "ffn_down.",
    "output.LayerNorm.": "layer_output_norm.",
}


def embed_with(file: Path) -> Callable[[str], NDArray[np.float32]]:
    """Write the file, load it in llama.cpp on one thread, and give what embeds a text with it."""
    write(file)
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.embedding, params.warmup, params.verbosity = True, False, -1
    params.n_parallel, params.n_ctx = 1, minilm.MAX_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)

    def embed(text: str) -> NDArray[np.float32]:
        told = server.handle_embeddings({"input": text, "model": "minilm"})
        vector = np.array(told["data"][0]["embedding"], np.float32)
        return vector / np.linalg.norm(vector)

    return embed


def write(file: Path) -> None:
    """A GGUF file of type Q8_0."""
    folder = minilm.packaged()
    out = gguf.GGUFWriter(file, "bert")
    out.add_block_count(minilm.NUM_LAYERS)
    out.add_context_length(minilm.MAX_TOKENS)
    out.add_embedding_length(minilm.NUM_DIMENSIONS)
    out.add_feed_forward_length(4 * minilm.NUM_DIMENSIONS)
    out.add_head_count(minilm.NUM_HEADS)
    out.add_layer_norm_eps(minilm.EPSILON)
    out.add_causal_attention(value=False)
    out.add_pooling_type(gguf.PoolingType.MEAN)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    write_tokens(out, json.loads((folder / "tokenizer.json").read_text()))
    for name, values in minilm.read_weights(folder / "model.safetensors").items():
        known = renamed(name)
        if known:
            wide = values.ndim > 1 and not known.startswith(("position", "token_types"))
            kind = gguf.GGMLQuantizationType.Q8_0 if wide else gguf.GGMLQuantizationType.F32
            out.add_tensor(known, gguf.quants.quantize(values, kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_tokens(out: Any, told: dict[str, Any]) -> None:
    """The vocabulary as llama.cpp wants WordPiece: words begin with a low line, their pieces with nothing."""
    words = sorted(told["model"]["vocab"], key=told["model"]["vocab"].get)
    pieces = [each[2:] if each.startswith("##") else each if each in SPECIAL else f"\u2581{each}" for each in words]
    out.add_tokenizer_model("bert")
    out.add_tokenizer_pre("default")
    out.add_token_list(pieces)
    out.add_token_types([gguf.TokenType.CONTROL if each in SPECIAL else gguf.TokenType.NORMAL for each in words])
    out.add_token_type_count(2)
    out.add_bos_token_id(SPECIAL["[CLS]"])
    out.add_eos_token_id(SPECIAL["[SEP]"])
    out.add_sep_token_id(SPECIAL["[SEP]"])
    out.add_unk_token_id(SPECIAL["[UNK]"])
    out.add_pad_token_id(SPECIAL["[PAD]"])


def renamed(name: str) -> str:
    """A tensor's name in llama.cpp; empty for one that it does not want."""
    for ours, theirs in OUTER.items():
        if name.startswith(ours):
            return name.replace(ours, theirs)
    _, _, rest = name.partition("encoder.layer.")
    number, _, rest = rest.partition(".")
    for ours, theirs in INNER.items():
        if rest.startswith(ours):
            return f"blk.{number}.{rest.replace(ours, theirs)}"
    return ""
