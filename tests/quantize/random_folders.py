"""Tiny Llamas with random weights as Hugging Face folders, written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def write_folder(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    """A whole folder for a tokenizer."""
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {**CONFIG, "vocab_size": tokenizer.get_vocab_size(), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", random_weights(config))
    return folder


def random_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights wide enough that a mistake shows."""
    draw = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    sizes = {"embed_tokens": (config["vocab_size"], hidden), "norm": (hidden,)}
    for at in range(config["num_hidden_layers"]):
        sizes |= {f"layers.{at}.self_attn.{part}_proj": (hidden, hidden) for part in "qkvo"}
        sizes |= {f"layers.{at}.mlp.{part}_proj": (inner, hidden) for part in ("gate", "up")}
        sizes |= {f"layers.{at}.mlp.down_proj": (hidden, inner)}
        sizes |= {f"layers.{at}.{part}_layernorm": (hidden,) for part in ("input", "post_attention")}
    made = {f"model.{name}.weight": draw.normal(0, 0.2, size).astype(np.float32) for name, size in sizes.items()}
    return {name: each + 1 if each.ndim == 1 else each for name, each in made.items()}


def write_weights(file: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """A safetensors file: a header in JSON, then the numbers."""
    header, begin = {}, 0
    for name, each in weights.items():
        header[name] = {"dtype": "F32", "shape": each.shape, "data_offsets": [begin, begin + each.nbytes]}
        begin += each.nbytes
    told = json.dumps(header).encode()
    file.write_bytes(len(told).to_bytes(8, "little") + told + b"".join(each.tobytes() for each in weights.values()))
