"""Steps and floors that are codes themselves, under a 16-bit number a block: K-quants' scales of scales."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from stepwell.quantize.fitting import error, nearest
from stepwell.quantize.formats import Format


@dataclass(frozen=True)
class Scales:
    """What a matrix's blocks have; Grid says what each is."""

    scale: Tensor
    steps: Tensor
    base: Tensor | None = None
    floors: Tensor | None = None

    @property
    def step(self) -> Tensor:
        """(rows, groups)."""
        return nested(self.scale, self.steps)

    @property
    def floor(self) -> Tensor | None:
        """(rows, groups)."""
        return None if self.base is None or self.floors is None else -nested(self.base, self.floors)

    def where(self, better: Tensor, other: Scales) -> Scales:
        """The other's blocks where it is better, (rows, blocks)."""
        wide = better.repeat_interleave(self.steps.shape[1] // self.scale.shape[1], 1)
        return Scales(
            torch.where(better, other.scale, self.scale),
            torch.where(wide, other.steps, self.steps),
            None if self.base is None or other.base is None else torch.where(better, other.base, self.base),
            None if self.floors is None or other.floors is None else torch.where(wide, other.floors, self.floors),
        )


def begun(format_: Format, step: Tensor, floor: Tensor | None) -> Scales:
    """Steps (and floors) of groups as codes; the largest of a block gets the largest code."""
    inner = step.reshape(step.shape[0], -1, format_.block // format_.group)
    if format_.scale_low < 0:
        far = inner.gather(-1, inner.abs().argmax(-1, keepdim=True))[..., 0]
        scale = half(far / format_.scale_low)
    else:
        scale = half(inner.clamp(min=0).amax(-1) / format_.scale_high)
    steps = whole(inner, scale, format_.scale_low, format_.scale_high).reshape(step.shape)
    if floor is None:
        return Scales(scale, steps)
    depth = (-floor).clamp(min=0).reshape(inner.shape)
    base = half(depth.amax(-1) / format_.scale_high)
    return Scales(scale, steps, base, whole(depth, base, 0, format_.scale_high).reshape(step.shape))


def polished(parts: Tensor, weights: Tensor, scales: Scales, format_: Format) -> Scales:
    """Codes of steps one up or down where that is better, then blocks' numbers by least squares where that is."""
    scales = neighbours(parts, weights, scales, format_)
    other = refitted(parts, weights, scales, format_)
    groups = format_.block // format_.group
    loss, new = (
        error(parts, weights, each.step, each.floor, format_).unflatten(1, (-1, groups)).sum(-1)
        for each in (scales, other)
    )
    return scales.where(new < loss, other)


def neighbours(parts: Tensor, weights: Tensor, scales: Scales, format_: Format) -> Scales:
    """Each group's best of the codes beside its step's and its floor's."""
    best = scales
    loss = error(parts, weights, scales.step, scales.floor, format_)
    for by, down in product((-1, 0, 1), (0,) if scales.floors is None else (-1, 0, 1)):
        steps = (scales.steps + by).clamp(format_.scale_low, format_.scale_high)
        floors = None if scales.floors is None else (scales.floors + down).clamp(0, format_.scale_high)
        tried = replace(scales, steps=steps, floors=floors)
        found = error(parts, weights, tried.step, tried.floor, format_)
        better = found < loss
        loss = torch.where(better, found, loss)
        kept = None if best.floors is None or floors is None else torch.where(better, floors, best.floors)
        best = replace(best, steps=torch.where(better, steps, best.steps), floors=kept)
    return best


def refitted(parts: Tensor, weights: Tensor, scales: Scales, format_: Format) -> Scales:
    """The best 16-bit numbers for the codes that these give: weighted least squares, a block at a time."""
    code = nearest(parts, scales.step, scales.floor, format_) * scales.steps[..., None]
    groups = format_.block // format_.group

    def total(each: Tensor) -> Tensor:
        return each.sum(-1).unflatten(1, (-1, groups)).sum(-1)

    squares, cross = total(weights * code * code), total(weights * code * parts)
    if scales.floors is None:
        scale = torch.where(squares > 0, cross / squares.clamp(min=1e-30), scales.scale)
        return replace(scales, scale=half(scale))
    low = -scales.floors[..., None].expand_as(code)
    lows, both, sums = total(weights * low * low), total(weights * code * low), total(weights * low * parts)
    spread = squares * lows - both * both
    good = spread > 1e-6 * squares * lows
    safe = torch.where(good, spread, 1.0)
    scale = torch.where(good, (lows * cross - both * sums) / safe, scales.scale)
    base = torch.where(
        good, (squares * sums - both * cross) / safe, torch.zeros(()) if scales.base is None else scales.base
    )
    return replace(scales, scale=half(scale), base=half(base))


def whole(values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Values of blocks (rows, blocks, groups) as whole multiples of their block's scale."""
    safe = torch.where(scale == 0, 1.0, scale)[..., None]
    return torch.where(scale[..., None] == 0, torch.zeros_like(values), values / safe).round().clamp(low, high)


def nested(scale: Tensor, codes: Tensor) -> Tensor:
    """Scales of blocks (rows, blocks) times codes of groups (rows, groups)."""
    return scale.repeat_interleave(codes.shape[1] // scale.shape[1], 1) * codes


def half(x: Tensor) -> Tensor:
    """The nearest 16-bit numbers, in 32 bits."""
    return x.clamp(-65504, 65504).half().float()
