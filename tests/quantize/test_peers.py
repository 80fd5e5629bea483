"""llama.cpp's quantizers as the benchmark calls them: the mixes of its presets, its bytes, and files that it serves.

That the tensors are llama.cpp's own, byte for byte, `python -m bench.quantize.peers_check` shows where its library is.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from bench.quantize import peers
from bench.quantize.peers_mix import mixed

from conftest import ROOT
from stepwell.quantize.engine import distributions

MODEL = ROOT / "models" / "house-writer"
PARTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def widths(num_layers: int, width: int = 512, *, tied: bool = True) -> dict[str, int]:
    ends = {"token_embd.weight": width} if tied else {"token_embd.weight": width, "output.weight": width}
    return ends | {f"blk.{layer}.{part}.weight": width for layer in range(num_layers) for part in PARTS}


def given(mix: dict[str, str], part: str) -> str:
    """The part's formats, layer by layer, by their first digit."""
    layers = sorted((int(name.split(".")[1]), kind) for name, kind in mix.items() if f".{part}." in name)
    return "".join(kind[1] for _, kind in layers)


@pytest.mark.parametrize(
    ("preset", "attn_v", "ffn_down", "attn_q"),
    [
        ("Q4_K_S", "5555444444444444", "5544444444444444", "4444444444444444"),
        ("Q4_K_M", "6644644644644666", "6644644644644666", "4444444444444444"),
        ("Q3_K_M", "5544444444444444", "5444444444444444", "3333333333333333"),
        ("Q2_K", "3333333333333333", "3333333333333333", "2222222222222222"),
    ],
)
def test_a_preset_gives_some_layers_more(preset: str, attn_v: str, ffn_down: str, attn_q: str) -> None:
    mix = mixed(preset, widths(16))
    assert (given(mix, "attn_v"), given(mix, "ffn_down"), given(mix, "attn_q")) == (attn_v, ffn_down, attn_q)
    assert mix["token_embd.weight"] == "Q6_K"


def test_an_embedding_that_is_no_head_gets_what_most_get() -> None:
    mix = mixed("Q4_K_S", widths(2, tied=False))
    assert (mix["token_embd.weight"], mix["output.weight"]) == ("Q4_K", "Q6_K")


def test_rows_that_no_block_of_256_divides_get_a_format_of_32() -> None:
    mix = mixed("Q4_K_S", widths(16, width=96))
    assert (given(mix, "attn_v"), given(mix, "attn_q")) == ("5" * 16, "5" * 16)
    assert {mix["blk.0.attn_v.weight"], mix["blk.0.attn_q.weight"]} == {"Q5_1", "Q5_0"}
    assert mix["token_embd.weight"] == "Q8_0"


def test_importances_change_the_first_eighth_of_a_q4_0_and_nothing_else() -> None:
    plain, guided = mixed("Q4_0", widths(16)), mixed("Q4_0", widths(16), imatrix=True)
    changed = {name for name in plain if plain[name] != guided[name]}
    assert changed == {"blk.0.ffn_down.weight", "blk.1.ffn_down.weight"}


@pytest.mark.parametrize("kind", ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K"])
def test_importances_make_the_errors_that_they_weigh_smaller(kind: str) -> None:
    chance = np.random.default_rng(0)
    weight = chance.standard_normal((64, 512)).astype(np.float32)
    importance = chance.gamma(0.3, 1, 512).astype(np.float32)
    bits = {True: peers.quantized(weight, kind, importance), False: peers.quantized(weight, kind)}
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    assert all(each.shape == (64, 512 // block * size) for each in bits.values())
    loss = {how: ((peers.dequantized(each, kind) - weight) ** 2 * importance).sum() for how, each in bits.items()}
    assert loss[True] <= loss[False]
    assert loss[False] < 0.2 * (weight**2 * importance).sum()


def test_a_preset_is_a_file_that_the_engine_serves(tmp_path: Path) -> None:
    file = peers.preset(MODEL, "Q4_K_S", tmp_path / "model.gguf")
    kinds = peers.formats(file)
    assert {kinds["token_embd.weight"], kinds["blk.3.attn_v.weight"], kinds["blk.0.ffn_up.weight"]} == {
        "Q6_K",
        "Q5_K",
        "Q4_K",
    }
    said = distributions(file, [([1, 5, 9, 4], [7, 3])])
    assert said.shape[0] == 2
    assert np.exp(said).sum(1) == pytest.approx(1.0, abs=1e-4)


def test_what_llama_cpp_refuses_without_importances_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with importances only"):
        peers.preset(MODEL, "Q2_K_S", tmp_path / "model.gguf")
