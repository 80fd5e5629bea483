"""Grids that are the served formats, bit for bit: a weight is `step * code + floor`, all three as the engine has them.

`fit` finds a matrix's steps and floors, `codes` rounds to them, `decoded` gives the very numbers that the engine will
compute with. GPTQ and training with fake quantization work on a fitted grid; `pack.py` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stepwell.quantize.fitting import ends, ends_with_floor, searched
from stepwell.quantize.formats import ROW, Format
from stepwell.quantize.nesting import begun, half, nested, polished

TRIES_A_ROUND = 10
"""So many tries are worth one round of looking for better codes of steps."""


@dataclass(frozen=True)
class Grid:
    """A format with the scales of one matrix. Groups are of neighbours in a row."""

    format: Format
    scale: Tensor
    """(rows, blocks) float32, exactly a 16-bit number: the step, or what codes of steps are multiplied by."""
    base: Tensor | None = None
    """(rows, blocks): the same for floors."""
    steps: Tensor | None = None
    """(rows, groups) whole numbers, where steps are codes."""
    floors: Tensor | None = None
    """(rows, groups) whole numbers, where floors are codes."""

    @property
    def step(self) -> Tensor:
        """(rows, groups) float32: what a code is multiplied by."""
        return self.scale if self.steps is None else nested(self.scale, self.steps)

    @property
    def floor(self) -> Tensor | None:
        """(rows, groups) float32: what is added; None where that is nothing."""
        if self.base is None:
            return None
        return self.base if self.floors is None else -nested(self.base, self.floors)

    def wide(self, each: Tensor, width: int) -> Tensor:
        """A number a group, (rows, groups), for every weight: (rows, width)."""
        return each.repeat_interleave(width // each.shape[1], 1)


@dataclass(frozen=True)
class Coded:
    """A matrix on its grid: what is written, and what the engine computes with."""

    grid: Grid
    codes: Tensor
    """(rows, width) whole numbers, float32."""

    @property
    def format(self) -> Format:
        """The format."""
        return self.grid.format

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return int(self.codes.numel() * self.format.bits(self.codes.shape[1]) / 8)

    def decoded(self) -> Tensor:
        """(rows, width) float32, exactly as the engine has it."""
        return decoded(self.grid, self.codes)

    def rows(self, order: Tensor) -> Coded:
        """The same with its rows in another order."""
        parts = (self.grid.scale, self.grid.base, self.grid.steps, self.grid.floors)
        taken = [None if part is None else part[order] for part in parts]
        scale = taken[0] if taken[0] is not None else self.grid.scale
        return Coded(Grid(self.format, scale, *taken[1:]), self.codes[order])


def codes(grid: Grid, weight: Tensor) -> Tensor:
    """The nearest codes of a matrix (rows, width)."""
    parts = grouped(weight, grid.format)
    step = grid.step[..., None]
    shifted = parts if grid.floor is None else parts - grid.floor[..., None]
    near = torch.where(step == 0, torch.zeros_like(shifted), shifted / torch.where(step == 0, 1.0, step))
    return near.round().clamp(grid.format.low, grid.format.high).reshape(weight.shape)


def decoded(grid: Grid, codes: Tensor) -> Tensor:
    """The numbers that codes stand for, with the engine's own rounding: (step * code) + floor in 32 bits."""
    parts = grouped(codes, grid.format) * grid.step[..., None]
    if grid.floor is not None:
        parts = parts + grid.floor[..., None]
    return parts.reshape(codes.shape)


def rounded(grid: Grid, weight: Tensor) -> Coded:
    """Round to nearest."""
    return Coded(grid, codes(grid, weight))


def grouped(weight: Tensor, format_: Format) -> Tensor:
    """(rows, width) as (rows, groups, group)."""
    return weight.reshape(weight.shape[0], -1, format_.group if format_.group != ROW else weight.shape[1])


def fit(format_: Format, weight: Tensor, importance: Tensor | None = None, *, tries: int = 0) -> Grid:
    """Steps and floors for a matrix (rows, width): from the ends of each group, or the best of so many narrower ones.

    `importance` (width) or (rows, width) weighs the squared errors; mean squared inputs are the usual ones.
    """
    parts = grouped(weight.float(), format_)
    weights = torch.ones_like(parts) if importance is None else grouped(importance.expand_as(weight).float(), format_)
    step, floor = (ends_with_floor if format_.floors else ends)(parts, format_)
    step, floor = searched(parts, weights, (step, floor), format_, tries)
    if not format_.nested:
        return Grid(format_, half(step), None if floor is None else half(floor))
    scales = begun(format_, step, floor)
    for _ in range(tries // TRIES_A_ROUND):
        scales = polished(parts, weights, scales, format_)
    return Grid(format_, scales.scale, scales.base, scales.steps, scales.floors)
