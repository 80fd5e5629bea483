"""Steps and floors of groups, as numbers: from each group's ends, then narrower, then by least squares.

A group's weights are `step * code + floor`. Everything here works on (rows, groups, group) at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.quantize.formats import Format

TRIES_A_REFIT = 5
"""So many tries are worth one more refit of the best."""


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
    best, least = begun, error(parts, weights, *begun, format_)
    for at in range(tries + tries // TRIES_A_REFIT):
        step, floor = narrower(begun, 1.05 - 0.5 * at / tries, at % 2, format_) if at < tries else best
        tried = refitted(parts, weights, step, floor, format_)
        found = error(parts, weights, *tried, format_)
        best, least = better(best, tried, found < least), torch.minimum(found, least)
    return best


def narrower(
    begun: tuple[Tensor, Tensor | None], share: float, odd: int, format_: Format
) -> tuple[Tensor, Tensor | None]:
    """Steps by a share narrower; every other time floors stay, or steps turn round where codes have a longer end."""
    step, floor = begun
    if floor is None:
        return step * (-share if odd and -format_.low != format_.high else share), None
    return step * share, floor if odd else floor * min(share, 1.0)


def better(
    best: tuple[Tensor, Tensor | None], tried: tuple[Tensor, Tensor | None], where: Tensor
) -> tuple[Tensor, Tensor | None]:
    """What was tried, where it is better, (rows, groups)."""
    floor = None if best[1] is None or tried[1] is None else torch.where(where, tried[1], best[1])
    return torch.where(where, tried[0], best[0]), floor


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
