"""Grids: codes and scales that a file can hold, the nearest codes, and fits as good as llama.cpp's own."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from bench.quantize import peers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stepwell.errors import DistillError
from stepwell.quantize import pack
from stepwell.quantize.formats import FORMATS, check, format_of
from stepwell.quantize.grids import Coded, Grid, codes, decoded, fit, grouped, rounded
from stepwell.quantize.rounding import TRIES, clipped, nearest

NAMES = tuple(FORMATS)
ROWS, WIDTH = 8, 512


def weight(seed: int, size: float = 1.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    made = torch.randn(ROWS, WIDTH, generator=draw) * torch.rand(ROWS, WIDTH // 32, generator=draw).repeat_interleave(
        32, 1
    )
    return made * size


def importance(seed: int) -> Tensor:
    return torch.rand(WIDTH, generator=torch.Generator().manual_seed(seed)).square() + 0.01


def loss(made: Coded, wanted: Tensor, costs: Tensor) -> float:
    return float(((made.decoded() - wanted).square() * costs).sum())


def holds(coded: Coded) -> None:
    """Every part is something that the file can hold."""
    format_, grid = coded.format, coded.grid
    for part in (grid.scale, grid.base):
        assert part is None or torch.equal(part, part.half().float())
    for part, low in ((grid.steps, format_.scale_low), (grid.floors, 0)):
        assert part is None or torch.equal(part, part.round().clamp(low, format_.scale_high))
    assert torch.equal(coded.codes, coded.codes.round().clamp(format_.low, format_.high))
    assert torch.isfinite(coded.decoded()).all()


@given(
    st.sampled_from(NAMES),
    st.integers(0, 2**31),
    st.sampled_from([1e-6, 0.02, 1.0, 300.0]),
    st.sampled_from([0, TRIES]),
)
@settings(max_examples=60, deadline=None)
def test_a_fit_is_always_something_a_file_can_hold(name: str, seed: int, size: float, tries: int) -> None:
    wanted = weight(seed, size)
    made = rounded(fit(FORMATS[name], wanted, importance(seed), tries=tries), wanted)
    holds(made)
    if FORMATS[name].engine == "gguf":
        assert np.array_equal(
            gguf.dequantize(pack.packed(made), gguf.GGMLQuantizationType[name]), made.decoded().numpy()
        )


@given(st.sampled_from(NAMES), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_no_other_code_is_nearer(name: str, seed: int) -> None:
    wanted = weight(seed)
    made = rounded(fit(FORMATS[name], wanted), wanted)
    error = (made.decoded() - wanted).abs()
    for by in (-1, 1):
        other = (made.codes + by).clamp(made.format.low, made.format.high)
        assert (error <= (decoded(made.grid, other) - wanted).abs() + 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_on_a_grid_stays_there(name: str) -> None:
    made = clipped(weight(1), FORMATS[name])
    again = codes(made.grid, made.decoded())
    assert torch.equal(decoded(made.grid, again), made.decoded())


@pytest.mark.parametrize("name", NAMES)
def test_groups_of_zeros_stay_zeros_and_constant_ones_lose_little(name: str) -> None:
    wanted = torch.zeros(2, WIDTH)
    wanted[1] = 0.3
    for made in (nearest(wanted, FORMATS[name]), clipped(wanted, FORMATS[name], importance(0))):
        holds(made)
        assert torch.equal(made.decoded()[0], wanted[0])
        assert (made.decoded()[1] - 0.3).abs().max() < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_looking_for_steps_never_costs_more(name: str) -> None:
    wanted, costs = weight(2), importance(2)
    assert loss(clipped(wanted, FORMATS[name], costs), wanted, costs) < loss(
        nearest(wanted, FORMATS[name]), wanted, costs
    )


@pytest.mark.parametrize("name", [name for name in NAMES if FORMATS[name].engine == "gguf"])
def test_fits_are_as_good_as_llama_cpps_own(name: str) -> None:
    wanted, costs = weight(3), importance(3)
    theirs = torch.tensor(peers.dequantized(peers.quantized(wanted.numpy(), name, costs.numpy()), name))
    their_loss = float(((theirs - wanted).square() * costs).sum())
    assert loss(clipped(wanted, FORMATS[name], costs), wanted, costs) <= 1.01 * their_loss


def test_steps_of_compressed_tensors_are_a_row_or_a_group() -> None:
    wanted = weight(4)
    for name, groups in (("int8", 1), ("int4_g128", WIDTH // 128), ("int4_g32", WIDTH // 32)):
        made = nearest(wanted, FORMATS[name])
        assert made.grid.scale.shape == (ROWS, groups)
        by_group = grouped(made.codes, made.format) * made.grid.scale[..., None]
        assert torch.equal(made.decoded(), by_group.reshape(wanted.shape))


def test_rows_can_be_put_in_another_order() -> None:
    made = clipped(weight(5), FORMATS["Q4_K"])
    order = torch.randperm(ROWS)
    assert torch.equal(made.rows(order).decoded(), made.decoded()[order])


def test_a_width_that_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(DistillError, match="48 wide, and Q4_0 takes 32 at a time: take no format"):
        check(format_of("Q4_0"), "layers.0.mlp.down_proj.weight", 48)
    with pytest.raises(DistillError, match="take Q8_0, Q5_1, Q5_0, Q4_1, Q4_0"):
        check(format_of("Q2_K"), "layers.0.mlp.down_proj.weight", 160)


def test_a_row_is_as_wide_as_its_groups_say() -> None:
    grid = Grid(FORMATS["Q4_0"], torch.tensor([[1.0, 2.0]]))
    assert grid.wide(grid.step, 64).tolist() == [[1.0] * 32 + [2.0] * 32]
