"""GPTQ: the textbook's codes where rows stand alone, better ones where they help each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepwell.quantize import gptq
from stepwell.quantize.curvature import Own, Term
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.grids import Coded, Grid, fit, rounded

ROWS, WIDTH = 96, 256


def moments(size: int, seed: int, rank: int = 24) -> Tensor:
    """Second moments of numbers that hang together."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2000, rank, generator=draw) @ torch.randn(rank, size, generator=draw)
    x = x * (torch.rand(size, generator=draw) + 0.1) + 0.3 * torch.randn(2000, size, generator=draw)
    return x.T @ x / 2000


def weight(seed: int = 0) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.05


def cost(term: Term, coded: Coded, wanted: Tensor) -> float:
    return float(term.cost(coded.decoded() - wanted))


def textbook(wanted: Tensor, grid: Grid, columns: Tensor) -> Tensor:
    """GPTQ as its paper's algorithm 1 has it, a column at a time in double precision."""
    order = columns.diagonal().argsort(descending=True)
    inverse = gptq.factor(columns[order][:, order], gptq.damping(wanted, grid)[0]).double()
    left, codes = wanted.double()[:, order].clone(), torch.empty_like(wanted)
    step = grid.wide(grid.step, WIDTH)[:, order].double()
    floor = torch.zeros_like(step) if grid.floor is None else grid.wide(grid.floor, WIDTH)[:, order].double()
    for at in range(WIDTH):
        code = ((left[:, at] - floor[:, at]) / step[:, at]).round().clamp(grid.format.low, grid.format.high)
        error = (left[:, at] - code * step[:, at] - floor[:, at]) / inverse[at, at]
        left[:, at:] -= error[:, None] * inverse[at, at:]
        codes[:, order[at]] = code.float()
    return codes


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "Q2_K", "int4_g128", "int8"])
def test_rows_that_stand_alone_get_the_textbooks_codes(name: str) -> None:
    wanted, columns = weight(), moments(WIDTH, 1)
    grid = fit(FORMATS[name], wanted, columns.diagonal(), tries=10)
    made = gptq.solved(wanted, grid, [Term(torch.rand(ROWS) + 0.5, columns)])
    assert (made.codes != textbook(wanted, grid, columns)).float().mean() < 0.005  # 32 bits against 64


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "Q8_0"])
def test_it_costs_less_than_rounding_and_less_still_where_rows_help_each_other(name: str) -> None:
    wanted, term = weight(), Term(moments(ROWS, 2), moments(WIDTH, 1))
    grid = fit(FORMATS[name], wanted, term.columns.diagonal(), tries=10)
    alone, both = (gptq.solved(wanted, grid, [each]) for each in (Term(term.each, term.columns), term))
    assert cost(term, alone, wanted) < 0.8 * cost(term, rounded(grid, wanted), wanted)
    assert cost(term, both, wanted) < 0.9 * cost(term, alone, wanted)


def test_inputs_that_do_not_hang_together_leave_rounding() -> None:
    wanted, format_ = weight(), FORMATS["Q4_0"]
    grid = fit(format_, wanted)
    made = gptq.solved(wanted, grid, [Term(torch.eye(ROWS), torch.eye(WIDTH))])
    assert torch.equal(made.codes, rounded(grid, wanted).codes)


def test_two_terms_are_weighed_together() -> None:
    wanted = weight()
    terms = [Term(torch.full((ROWS,), 2.0), moments(WIDTH, 3)), Term(torch.rand(ROWS), moments(WIDTH, 4))]
    grid = fit(FORMATS["Q3_K"], wanted, tries=10)
    both = gptq.solved(wanted, grid, terms)
    for single in terms:
        other = gptq.solved(wanted, grid, [single])
        assert sum(cost(term, both, wanted) for term in terms) < sum(cost(term, other, wanted) for term in terms)


def test_rows_with_a_curvature_of_their_own_follow_it() -> None:
    wanted, columns = weight(), moments(WIDTH, 1)
    own = Own(torch.tensor([5, 40]), torch.stack([moments(WIDTH, 7), moments(WIDTH, 8)]))
    rows = torch.ones(ROWS).index_fill(0, own.rows, 0)
    grid = fit(FORMATS["Q4_0"], wanted, tries=10)
    made, pooled = (gptq.solved(wanted, grid, [Term(rows, columns)], each) for each in (own, None))
    assert float(own.cost(made.decoded() - wanted)) < 0.8 * float(own.cost(pooled.decoded() - wanted))
    others = rows.bool()
    assert torch.equal(made.codes[others], pooled.codes[others])


def test_inputs_that_are_never_there_and_groups_of_zeros_do_no_harm() -> None:
    wanted, columns = weight(), moments(WIDTH, 1)
    columns[:32] = 0
    columns[:, :32] = 0
    wanted[3, 64:128] = 0
    grid = fit(FORMATS["Q4_K"], wanted, columns.diagonal(), tries=10)
    made = gptq.solved(wanted, grid, [Term(torch.zeros(ROWS), columns)])
    assert torch.isfinite(made.decoded()).all()
    assert (made.decoded() - wanted).abs().max() < 0.1
