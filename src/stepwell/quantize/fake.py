"""Quantization while a model learns: every step computes with the numbers the engine will have.

Weights stay whole behind it: the forward pass sees them rounded to their grid, the gradient goes straight through to
them (Bengio et al. 2013). A weight that lies beyond its grid's ends gets none: it would not move what is computed.
The grid is a function of the weights alone, so that averaged weights, a resumed run and the exported file have the very
codes that were learned with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
import torch
from torch import Tensor

from stepwell.quantize import grids
from stepwell.quantize.fitting import better, ends, ends_with_floor, error, refitted
from stepwell.quantize.formats import FORMATS, PLAIN, Format
from stepwell.quantize.grids import Coded, Grid
from stepwell.quantize.nesting import begun as nested
from stepwell.quantize.nesting import half
from stepwell.quantize.network import Network, matrices, short
from stepwell.quantize.recipe import Recipe, chosen

SHARES = (1.05, 0.8)
"""Of each group's span, tried beside all of it, in every step: more would cost more than it brings."""


@dataclass(frozen=True)
class Fake:
    """Name and weight -> the weight as the engine has it; `distill.train` calls it a transform."""

    formats: Mapping[str, Format]
    """By short name; any other weight stays as it is."""

    @property
    def name(self) -> str:
        """What a run with it is known by."""
        said = sorted((name, each.name) for name, each in self.formats.items())
        return sha256(msgspec.json.encode([said, len(SHARES)])).hexdigest()

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        """Rounded, with gradients straight through."""
        format_ = self.formats.get(short(name))
        if format_ is None:
            return weight
        made: Tensor = Through.apply(weight, format_)
        return made


class Through(torch.autograd.Function):
    """Round forward; backward the gradient as it is, but for what is clipped."""

    @staticmethod
    def forward(context: Any, weight: Tensor, format_: Format) -> Tensor:  # noqa: ANN401 - autograd's own
        """The matrix as the engine has it."""
        coded = on_grid(format_, weight)
        made = coded.decoded()
        context.save_for_backward(inside(coded, weight, made))
        return made

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """The gradient, without what is clipped."""
        (kept,) = context.saved_tensors
        return gradient * kept, None


def on_grid(format_: Format, weight: Tensor) -> Coded:
    """A matrix's codes: the same for the same weights, wherever and whenever."""
    return grids.rounded(quick(format_, weight), weight)


def quick(format_: Format, weight: Tensor) -> Grid:
    """A grid by the ends of each group or, where that is nearer, by least squares from narrower ones.

    What `grids.fit` finds is nearer still, and may change as it learns; this is what models are trained for.
    """
    parts = grids.grouped(weight.float(), format_)
    alike = torch.ones_like(parts)
    begun = best = (ends_with_floor if format_.floors else ends)(parts, format_)
    least = error(parts, alike, *best, format_)
    for share in SHARES:
        floor = None if begun[1] is None else begun[1] * min(share, 1.0)
        tried = refitted(parts, alike, begun[0] * share, floor, format_)
        found = error(parts, alike, *tried, format_)
        best, least = better(best, tried, found < least), torch.minimum(found, least)
    step, floor = best
    if not format_.nested:
        return Grid(format_, half(step), None if floor is None else half(floor))
    scales = nested(format_, step, floor)
    return Grid(format_, scales.scale, scales.base, scales.steps, scales.floors)


def inside(coded: Coded, weight: Tensor, made: Tensor) -> Tensor:
    """(rows, width): which weights are not beyond the ends of their group's grid, by more than a step."""
    width = weight.shape[1]
    end = (coded.codes == coded.format.low) | (coded.codes == coded.format.high)
    return ~end | ((weight - made).abs() <= coded.grid.wide(coded.grid.step, width).abs())


def fake(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> Fake:
    """The transform for a recipe. Raises DistillError for an unknown format, or one that does not fit a width."""
    rules = chosen(recipe, shapes)
    return Fake({name: FORMATS[rule.format] for name, rule in rules.items() if rule.format not in PLAIN})


def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """The matrices' sizes by short name."""
    return {name: tuple(weight.shape) for name, weight in matrices(network).items()}


@torch.no_grad()
def coded(network: Network, recipe: Recipe) -> dict[str, Coded]:
    """What a model that learned with a recipe's transform is written as: the codes it was computed with."""
    transform = fake(recipe, shapes_of(network))
    held = matrices(network)
    return {name: on_grid(each, held[name].detach().float()) for name, each in transform.formats.items()}
