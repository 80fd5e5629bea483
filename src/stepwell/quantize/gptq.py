"""GPTQ (Frantar et al. 2022): a column's rounding errors are made good by the columns that are still to come."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.quantize.grids import Coded, Grid

DAMPING = 0.01
"""Share of the mean diagonal that is added to it."""
BLOCK = 128
"""Columns after which the rest of the matrix hears of the errors."""


def solved(weight: Tensor, grid: Grid, moments: Tensor, damping: float = DAMPING) -> Coded:
    """Codes on a fitted grid for a matrix (rows, width) and its inputs' second moments (width, width).

    Columns go by falling activation.
    """
    width = weight.shape[1]
    order = moments.diagonal().argsort(descending=True)
    step = grid.wide(grid.step, width)[:, order]
    floor = torch.zeros_like(step) if grid.floor is None else grid.wide(grid.floor, width)[:, order]
    inverse = factor(moments[order][:, order], damping)
    left, codes = weight.detach().float()[:, order].clone(), torch.empty_like(step)
    safe = torch.where(step == 0, 1.0, step)
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        errors = torch.empty(len(weight), end - start)
        for at in range(start, end):
            code = ((left[:, at] - floor[:, at]) / safe[:, at]).round_().clamp_(grid.format.low, grid.format.high)
            code[step[:, at] == 0] = 0
            error = (left[:, at] - (code * step[:, at] + floor[:, at])) / inverse[at, at]
            left[:, at:end].addr_(error, inverse[at, at:end], alpha=-1)
            codes[:, at], errors[:, at - start] = code, error
        left[:, end:].addmm_(errors, inverse[start:end, end:], alpha=-1)
    back = torch.empty_like(codes)
    back[:, order] = codes
    return Coded(grid, back)


def factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the damped moments' inverse."""
    moments = moments.double()
    extra = damping * moments.diagonal().mean().clamp(min=1e-12)
    moments = moments + torch.eye(len(moments), dtype=torch.double) * extra
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return upper
