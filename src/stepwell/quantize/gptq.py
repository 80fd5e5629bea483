"""GPTQ (Frantar et al. 2022) on both sides: a rounding error is made good by the columns, and rows, still to come.

What counts is a term's tr(R E C E^T). Along a row, the columns behind take up a column's error as C says; what is left
of some rows is then taken up by the rows behind them as R says (YAQA, Tseng et al. 2025). Rows and columns go by
falling weight ("activation order").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepwell.errors import DistillError
from stepwell.quantize.curvature import Own, Term
from stepwell.quantize.grids import Coded, Grid, rounded

Floats = NDArray[np.float32]
DAMPING = (0.01, 0.1)
"""Share of C's and R's mean diagonal that is added to it; more to R, which fewer tokens tell about."""
NOISE = (3.0, 10.0)
"""How much more, times the share of a matrix's squares that rounding loses: what is told of the parent holds less the
coarser its formats are. Chosen on dev texts at 2 to 4 bits."""
COLUMNS, ROWS = 128, 16
"""So many are rounded before the rest of the matrix hears of their errors; of rows more where there are many."""
PARTS = 32
"""Parts that rows are gone through in, at most."""


def solved(weight: Tensor, grid: Grid, terms: Sequence[Term], own: Own | None = None) -> Coded:
    """Codes on a fitted grid for a matrix (rows, width) whose errors cost these terms, and some rows their own.

    Rows are coupled where there is one term and it says how; else each row stands for itself.
    """
    each = torch.stack([term.each for term in terms]).sum(0)
    columns = torch.stack([term.each.mean() * term.columns for term in terms]).sum(0)
    down, right = each.argsort(descending=True), columns.diagonal().argsort(descending=True)
    for_columns, for_rows = damping(weight, grid)
    inner = factor(columns[right][:, right], for_columns).numpy()
    coupled = len(terms) == 1 and terms[0].coupled
    outer = factor(terms[0].rows[down][:, down], for_rows) if coupled else None
    back = torch.empty_like(weight)
    back[down[:, None], right] = by_rows(weight[down][:, right], Lines.by(grid, down, right), inner, outer)
    if own is not None:
        lines = Lines.by(grid, own.rows, right)
        back[own.rows[:, None], right] = one_by_one(weight[own.rows][:, right], lines, own, for_columns)
    return Coded(grid, back)


def damping(weight: Tensor, grid: Grid) -> tuple[float, float]:
    """Shares of C's and R's mean diagonal for a matrix on its grid."""
    lost = (rounded(grid, weight).decoded() - weight).square().sum() / weight.square().sum().clamp(min=1e-30)
    columns, rows = (least + times * float(lost) for least, times in zip(DAMPING, NOISE, strict=True))
    return columns, rows


def one_by_one(weight: Tensor, lines: Lines, own: Own, damped: float) -> Tensor:
    """Codes of rows that have each a C of its own."""
    codes = torch.empty_like(weight)
    for row, columns in enumerate(own.columns):
        inner = factor(columns[lines.order][:, lines.order], damped).numpy()
        here = slice(row, row + 1)
        codes[here] = by_rows(weight[here], lines.part(here), inner, None)
    return codes


@dataclass(frozen=True)
class Lines:
    """A grid's steps and floors for rows and columns in the order they are gone through."""

    ends: tuple[int, int]
    """The lowest and the highest code."""
    order: Tensor
    """(width) columns."""
    step: Tensor
    """(rows, groups)."""
    floor: Tensor | None

    @classmethod
    def by(cls, grid: Grid, down: Tensor, right: Tensor) -> Lines:
        """Rows and columns of a grid in these orders."""
        floor = None if grid.floor is None else grid.floor[down]
        return cls((grid.format.low, grid.format.high), right, grid.step[down], floor)

    def part(self, rows: slice) -> Lines:
        """Some rows."""
        return replace(self, step=self.step[rows], floor=None if self.floor is None else self.floor[rows])

    def columns(self) -> tuple[Floats, Floats | None]:
        """(width, rows) steps and floors."""
        group = self.order // (len(self.order) // self.step.shape[1])
        step = self.step[:, group].T.contiguous().numpy()
        return step, None if self.floor is None else self.floor[:, group].T.contiguous().numpy()


def by_rows(weight: Tensor, lines: Lines, inner: Floats, outer: Tensor | None) -> Tensor:
    """Codes of a matrix, some rows after the other; all at once where they are not coupled."""
    left, codes = weight.clone(), torch.empty_like(weight)
    size = len(left) if outer is None else max(ROWS, -(-len(left) // PARTS))
    for start in range(0, len(left), size):
        end = min(start + size, len(left))
        step, floor = lines.part(slice(start, end)).columns()
        found = by_columns(left[start:end].T.clone().numpy(), step, floor, inner, lines.ends)
        codes[start:end] = torch.from_numpy(found).T
        if outer is not None and end < len(left):
            made = torch.from_numpy(found * step if floor is None else found * step + floor).T
            known, behind = outer[start:end, start:end], outer[start:end, end:]
            error = torch.linalg.solve_triangular(known.T, left[start:end] - made, upper=False)
            left[end:] -= behind.T @ error
    return codes


def by_columns(left: Floats, step: Floats, floor: Floats | None, inner: Floats, ends: tuple[int, int]) -> Floats:
    """Codes (width, rows) for what is left to be said (width, rows), which is used up."""
    width, codes, errors = len(left), np.empty_like(left), np.empty_like(left)
    with np.errstate(divide="ignore"):
        per_step = np.where(step == 0, 0, 1 / step).astype(np.float32)
    for start in range(0, width, COLUMNS):
        end = min(start + COLUMNS, width)
        near = np.ascontiguousarray(inner[start:end, start:end])
        for at in range(start, end):
            here, code = left[at], codes[at]
            np.multiply(here if floor is None else here - floor[at], per_step[at], out=code)
            np.clip(np.rint(code, out=code), *ends, out=code)
            made = code * step[at] if floor is None else code * step[at] + floor[at]
            errors[at] = (here - made) / near[at - start, at - start]
            left[at + 1 : end] -= near[at - start, at - start + 1 :, None] * errors[at]
        left[end:] -= inner[start:end, end:].T @ errors[start:end]
    return codes


def factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the damped moments' inverse; damped more where rounding made them indefinite.

    Raises DistillError for moments that are no numbers.
    """
    whole = moments.double()
    extra = damping * whole.diagonal().mean().clamp(min=1e-30) * torch.eye(len(whole), dtype=whole.dtype)
    if not torch.isfinite(whole).all():
        raise DistillError("what a matrix reads is NaN or infinite: the model is damaged, train or fetch it again")
    lower, failed = torch.linalg.cholesky_ex(whole + extra)
    while failed:  # moments summed in 16 bits, of a model that is sure of nearly everything
        extra = 4 * extra
        lower, failed = torch.linalg.cholesky_ex(whole + extra)
    upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float()
    return upper
