"""The recipes that a search begins with: what anybody would take, one format for all, and mixtures of every size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from stepwell.quantize.allocate import Choice, allocated
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.frontier import Point
from stepwell.quantize.recipe import Method, Recipe, chosen, num_bytes, uniform

PRESETS = ("Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q4_K", "Q4_0", "Q3_K", "Q2_K")
"""llama.cpp's formats, each for all matrices."""
Shapes = Mapping[str, tuple[int, int]]


def fitting(shapes: Shapes, formats: Iterable[str] = PRESETS) -> list[str]:
    """Those of the formats that every matrix fits."""
    return [name for name in formats if all(FORMATS[name].fits(width) for _, width in shapes.values())]


def presets(shapes: Shapes) -> list[Point]:
    """One format for all, rounded to nearest."""
    return [point(f"{name} rounded", uniform(name, "round"), shapes, preset=True) for name in fitting(shapes)]


def uniforms(shapes: Shapes, method: Method = "gptq") -> list[Point]:
    """One format for all, by a better method."""
    return [point(f"{name} {method}", uniform(name, method), shapes) for name in fitting(shapes)]


def budgets(choices: Mapping[str, Sequence[Choice]], num: int) -> list[int]:
    """Costs from the least that is possible to the most, each about as many per cent above the one before."""
    least = sum(min(each.cost for each in group) for group in choices.values())
    most = sum(max(each.cost for each in group) for group in choices.values())
    if num < 2 or least == most:  # noqa: PLR2004
        return [least]
    return [least, *(round(least * (most / least) ** (at / (num - 1))) for at in range(1, num))]


def picks(choices: Mapping[str, Sequence[Choice]], wanted: Iterable[int]) -> list[dict[str, Choice]]:
    """The best choices for each budget, each once."""
    found = [allocated(choices, budget) for budget in wanted]
    return [now for before, now in pairwise([{}, *found]) if now != before]


def point(name: str, recipe: Recipe, shapes: Shapes, *, preset: bool = False) -> Point:
    """A recipe as nobody has looked at it yet."""
    size = num_bytes(recipe, shapes)
    weights = sum(rows * width for rows, width in shapes.values())
    return Point(name=name, recipe=recipe, bits=8 * size / weights, num_bytes=size, preset=preset)


def mixed(recipe: Recipe, shapes: Shapes) -> Point:
    """A mixture, named by its bits a weight."""
    made = point("", recipe, shapes)
    return point(f"mixed {made.bits:.3f}", recipe, shapes)


def distinct(points: Iterable[Point], shapes: Shapes) -> list[Point]:
    """Those that come to other files than the ones before, under names of their own."""
    found: dict[tuple[tuple[str, str, str], ...], Point] = {}
    names: set[str] = set()
    for each in points:
        rules = tuple((name, rule.format, rule.method) for name, rule in chosen(each.recipe, shapes).items())
        if each.name not in names and rules not in found:
            found[rules] = each
            names.add(each.name)
    return list(found.values())
