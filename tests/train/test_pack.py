"""Packed codes read back, by gguf's reader and by llama.cpp itself, as the very numbers that the grid stands for."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from stepwell.errors import DistillError
from stepwell.quantize import pack
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.grids import Coded, Grid, fit, rounded

NAMES = tuple(pack.LAYOUTS)


def weight(rows: int = 12, width: int = 512, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    spread = torch.rand(rows, width // 32).repeat_interleave(32, 1)  # steps of all sizes
    made = torch.randn(rows, width) * spread
    made[0] = 0
    made[1, :256] = 0.5
    return made


def anything(name: str, seed: int) -> Coded:
    """Every code and every scale, whether a fit would choose it or not."""
    format_, draw = FORMATS[name], torch.Generator().manual_seed(seed)
    rows, width = 6, 768

    def some(low: int, high: int, size: int) -> torch.Tensor:
        return torch.randint(low, high + 1, (rows, size), generator=draw).float()

    def scales() -> torch.Tensor:
        return torch.randn(rows, width // format_.block, generator=draw).half().float()

    groups, nested = width // format_.group, format_.nested
    steps = some(format_.scale_low, format_.scale_high, groups) if nested else None
    base = scales() if format_.floors else None
    floors = some(0, format_.scale_high, groups) if nested and format_.floors else None
    return Coded(Grid(format_, scales(), base, steps, floors), some(format_.low, format_.high, width))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_packed_reads_back_exactly(name: str) -> None:
    for coded in (rounded(fit(FORMATS[name], weight()), weight()), anything(name, 1), anything(name, 2)):
        held = pack.packed(coded)
        assert held.shape == (coded.codes.shape[0], coded.num_bytes // coded.codes.shape[0])
        read = gguf.dequantize(held, gguf.GGMLQuantizationType[name])
        assert np.array_equal(read, coded.decoded().numpy())


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_reads_the_same(name: str) -> None:
    library = pytest.importorskip("stepwell.quantize.engine_library", reason="needs llama.cpp: pip install xllamacpp")
    coded = anything(name, 3)
    read = library.dequantized(pack.packed(coded), name, coded.codes.shape[1])
    wanted = coded.decoded().numpy()
    assert np.allclose(read, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())  # a compiler may fuse the addition


def test_what_no_block_can_hold_is_refused() -> None:
    coded = rounded(fit(FORMATS["Q4_0"], weight()), weight())
    with pytest.raises(DistillError, match="outside -8 to 7"):
        pack.packed(Coded(coded.grid, coded.codes + 20))
    with pytest.raises(DistillError, match="no 16-bit number"):
        pack.packed(Coded(Grid(coded.format, coded.grid.scale * 1.0001), coded.codes))
    with pytest.raises(DistillError, match="no 16-bit number"):
        pack.packed(Coded(Grid(coded.format, coded.grid.scale * float("nan")), coded.codes))
    with pytest.raises(DistillError, match="GGUF has no int8"):
        pack.packed(rounded(fit(FORMATS["int8"], weight()), weight()))
