"""Every exported architecture: llama.cpp's logits of the file are transformers' of the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import KINDS, write_model
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from stepwell.errors import DistillError
from stepwell.quantize import grids
from stepwell.quantize.engine import Text, distributions
from stepwell.quantize.export import to_gguf
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.weights import read

GEMMA: dict[str, Any] = {"query_pre_attn_scalar": 8}
SIZES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "granite": {"attention_multiplier": 0.4},
    "gemma": {},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LENGTH, NUM_PROMPT = 60, 4
"""Longer than the windows."""


@pytest.fixture(autouse=True)
def _gemma() -> None:
    KINDS.setdefault("gemma", {})


def texts(num: int = 3, tokens: int = 300) -> list[Text]:
    draw = np.random.default_rng(1)
    made = [draw.integers(4, tokens, LENGTH).tolist() for _ in range(num)]
    return [(each[:NUM_PROMPT], each[NUM_PROMPT:]) for each in made]


def wanted(folder: Path, given: list[Text]) -> NDArray[np.float32]:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = [model(torch.tensor([[*a, *b]])).logits[0, len(a) - 1 : -1] for a, b in given]
    return torch.log_softmax(torch.cat(logits), -1).numpy()


def divergence(theirs: NDArray[np.float32], ours: NDArray[np.float32]) -> float:
    return float((np.exp(theirs.astype(float)) * (theirs.astype(float) - ours)).sum(1).mean())


@pytest.mark.parametrize("kind", SIZES)
def test_the_engine_computes_what_transformers_does(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path / kind, kind, **SIZES[kind])
    file = to_gguf(folder, tmp_path / "model.gguf", "F32")
    theirs, ours = wanted(folder, texts()), distributions(file, texts())
    assert np.abs(theirs - ours).max() < 2e-2  # keys and values are kept in 16 bits
    assert divergence(theirs, ours) < 1e-5
    assert np.abs(theirs - theirs.mean(0)).max() > 0.5  # and they are not all the same


@pytest.mark.parametrize(
    ("kind", "rope"),
    [
        ("llama", LLAMA3),
        ("llama", {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}),
        (
            "gemma3_text",
            {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        ),
    ],
)
def test_stretched_positions_are_the_same(tmp_path: Path, kind: str, rope: dict[str, Any]) -> None:
    folder = write_model(tmp_path / kind, kind, **SIZES[kind], rope_parameters=rope)
    theirs = wanted(folder, texts())
    assert divergence(theirs, distributions(to_gguf(folder, tmp_path / "a.gguf", "F32"), texts())) < 1e-5
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": None}))
    plain = distributions(to_gguf(folder, tmp_path / "b.gguf", "F32"), texts())
    assert divergence(theirs, plain) > 1e-4  # it would have been seen


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("gemma2", {"query_pre_attn_scalar": 256}, "divides attention by the root of 256"),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, "every second layer"),
        ("gemma", {"tie_word_embeddings": False}, "a head of its own"),
        ("llama", {"hidden_act": "relu"}, "activation 'relu'"),
        ("llama", {"attention_bias": True}, "biases"),
        ("qwen3", {"head_dim": 16}, r"makes it \(32, 32\)|makes it \(64, 32\)|makes it \(16,\)"),
        ("granite", {"num_hidden_layers": 3}, "lacks 9 weights"),
        ("granite", {"num_hidden_layers": 1}, "has the weight 'model.layers.1"),
        ("llama", {"hidden_size": None}, "lacks or misstates"),
    ],
)
def test_what_the_engine_would_compute_otherwise_is_refused(
    tmp_path: Path, kind: str, change: dict[str, Any], said: str
) -> None:
    folder = write_model(tmp_path / kind, kind, **SIZES[kind])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DistillError, match=said):
        to_gguf(folder, tmp_path / "model.gguf", "F32")
    assert not list(tmp_path.glob("*.gguf"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize(
    "mixed", [{"": "Q4_0"}, {"": "Q5_1", "down_proj": "Q4_1", "embed": "Q8_0"}, {"": "Q2_K", "o_proj": "Q6_K"}]
)
def test_codes_go_in_as_they_are(tmp_path: Path, kind: str, mixed: dict[str, str]) -> None:
    wide = 256 if "Q2_K" in mixed.values() else 64
    sizes = {"hidden_size": wide, "intermediate_size": wide, "head_dim": wide // 4}
    sizes |= {"query_pre_attn_scalar": wide // 4} if "gemma" in kind else {}
    folder = write_model(tmp_path / kind, kind, **sizes)
    coded = {
        name: grids.rounded(grids.fit(FORMATS[chosen(name, mixed)], torch.tensor(weight)), torch.tensor(weight))
        for name, weight in ((name.removeprefix("model."), weight) for name, weight in read(folder))
        if weight.ndim > 1
    }
    file = to_gguf(folder, tmp_path / "model.gguf", coded=coded)
    decoded = rewritten(folder, {name: each.decoded() for name, each in coded.items()})
    theirs, ours = wanted(decoded, texts()), distributions(file, texts())
    apart = divergence(theirs, wanted(folder, texts()))
    assert divergence(theirs, ours) < apart / 30  # activations have 8 bits in the engine


def chosen(name: str, mixed: dict[str, str]) -> str:
    return next((kind for part, kind in mixed.items() if part and part in name), mixed[""])


def rewritten(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """The same model with other weights, in a folder beside it."""
    made = folder.with_name(f"{folder.name}-decoded")
    shutil.copytree(folder, made)
    held = load_file(folder / "model.safetensors")
    save_file(
        {name: weights.get(name.removeprefix("model."), each).contiguous() for name, each in held.items()},
        made / "model.safetensors",
        metadata={"format": "pt"},
    )
    return made
