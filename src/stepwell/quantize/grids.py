"""Grids that are the served formats, bit for bit: a weight is `step * code + floor`, all three as the engine has them.

`fit` finds a matrix's steps and floors, `codes` rounds to them, `decoded` gives the very numbers that the engine will
compute with. GPTQ, scaling and training with fake quantization all work on a fitted grid; `pack.py` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stepwell.quantize.formats import ROW, Format


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


def nested(scale: Tensor, codes: Tensor) -> Tensor:
    """Scales of blocks (rows, blocks) times codes of groups (rows, groups)."""
    return scale.repeat_interleave(codes.shape[1] // scale.shape[1], 1) * codes


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


def half(x: Tensor) -> Tensor:
    """The nearest 16-bit numbers, in 32 bits."""
    return x.clamp(-65504, 65504).half().float()


# --- fitting


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
    return nested_grid(format_, step, floor)


def ends(parts: Tensor, format_: Format) -> tuple[Tensor, Tensor | None]:
    """Steps that reach each group's largest weight; it takes the end of the codes that has one more, where one has."""
    far = parts.gather(-1, parts.abs().argmax(-1, keepdim=True))[..., 0]
    return (far.abs() / format_.high if -format_.low == format_.high else far / format_.low), None


def ends_with_floor(parts: Tensor, format_: Format) -> tuple[Tensor, Tensor | None]:
    """Steps and floors from the smallest weight to the largest; K-quants' floors are never above 0."""
    low, high = parts.amin(-1), parts.amax(-1)
    low = low.clamp(max=0) if format_.nested else low
    return (high - low).clamp(min=0) / format_.high, low


def searched(
    parts: Tensor, weights: Tensor, begun: tuple[Tensor, Tensor | None], format_: Format, tries: int
) -> tuple[Tensor, Tensor | None]:
    """Of steps narrower by and by, each then refitted by least squares, the one with the smallest weighted error."""
    step, floor = begun
    best, best_step, best_floor = error(parts, weights, step, floor, format_), step, floor
    for at in range(tries):
        share = 1.05 - 0.5 * at / tries
        narrow = None if floor is None else floor * min(share, 1.0)
        now, low = refitted(parts, weights, step * share, narrow, format_)
        found = error(parts, weights, now, low, format_)
        better = found < best
        best, best_step = torch.where(better, found, best), torch.where(better, now, best_step)
        if low is not None and best_floor is not None:
            best_floor = torch.where(better, low, best_floor)
    return best_step, best_floor


def nearest(parts: Tensor, step: Tensor, floor: Tensor | None, format_: Format) -> Tensor:
    """Codes of groups (rows, groups, group) for these steps and floors."""
    shifted = parts if floor is None else parts - floor[..., None]
    safe = torch.where(step == 0, 1.0, step)[..., None]
    return (shifted / safe).round().clamp(format_.low, format_.high)


def error(parts: Tensor, weights: Tensor, step: Tensor, floor: Tensor | None, format_: Format) -> Tensor:
    """Weighted squared error of each group, (rows, groups)."""
    made = nearest(parts, step, floor, format_) * step[..., None]
    made = made if floor is None else made + floor[..., None]
    return ((made - parts).square() * weights).sum(-1)


def refitted(
    parts: Tensor, weights: Tensor, step: Tensor, floor: Tensor | None, format_: Format
) -> tuple[Tensor, Tensor | None]:
    """The best step (and floor) for the codes that these give: weighted least squares."""
    code = nearest(parts, step, floor, format_)
    squares, cross = (weights * code * code).sum(-1), (weights * code * parts).sum(-1)
    if floor is None:
        return torch.where(squares > 0, cross / squares.clamp(min=1e-30), step), None
    total, mass, sums = weights.sum(-1), (weights * code).sum(-1), (weights * parts).sum(-1)
    spread = total * squares - mass * mass
    good = spread > 1e-12 * total * squares.clamp(min=1e-30)
    new = torch.where(good, (total * cross - mass * sums) / torch.where(good, spread, 1.0), step)
    low = torch.where(good, (sums - new * mass) / total.clamp(min=1e-30), floor)
    if format_.nested:  # floors above 0 cannot be written: the step alone is fitted there
        alone = torch.where(squares > 0, cross / squares.clamp(min=1e-30), step)
        new, low = torch.where(low > 0, alone, new), low.clamp(max=0)
    return new, low


def nested_grid(format_: Format, step: Tensor, floor: Tensor | None) -> Grid:
    """Steps (and floors) of groups as codes under one 16-bit number a block."""
    groups = format_.block // format_.group
    inner = step.reshape(step.shape[0], -1, groups)
    if format_.scale_low < 0:
        far = inner.gather(-1, inner.abs().argmax(-1, keepdim=True))[..., 0]
        scale = half(far / format_.scale_low)
    else:
        scale = half(inner.clamp(min=0).amax(-1) / format_.scale_high)
    steps = whole(inner, scale, format_.scale_low, format_.scale_high).reshape(step.shape)
    if floor is None:
        return Grid(format_, scale, steps=steps)
    depth = (-floor).clamp(min=0).reshape(step.shape[0], -1, groups)
    base = half(depth.amax(-1) / format_.scale_high)
    floors = whole(depth, base, 0, format_.scale_high).reshape(step.shape)
    return Grid(format_, scale, base, steps, floors)


def whole(values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Values of blocks (rows, blocks, groups) as whole multiples of their block's scale."""
    safe = torch.where(scale == 0, 1.0, scale)[..., None]
    return torch.where(scale[..., None] == 0, torch.zeros_like(values), values / safe).round().clamp(low, high)
