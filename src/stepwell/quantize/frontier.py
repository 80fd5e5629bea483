"""What a search knows of each recipe it tried, and which of them no other one beats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct

from stepwell.quantize.recipe import Recipe

Metric = Literal["bleu", "right"]
"""bleu: corpus BLEU, 0 to 100. right: the share of answers that are right."""
Target = Literal["size", "latency", "cost"]
Measure = Callable[["Point"], float]


class Difference(Struct, frozen=True):
    """A file's score beside its parent's on the same prompts; each bound is passed with probability alpha."""

    metric: Metric
    score: float
    parent: float
    low: float
    """Bounds of score - parent."""
    high: float
    p: float
    """Of the hypothesis that it is worse by the whole margin."""
    margin: float

    @property
    def passes(self) -> bool:
        """Whether it is shown to be worse by less than the margin."""
        return self.low > -self.margin

    @property
    def hopeless(self) -> bool:
        """Whether it is shown to be worse by more."""
        return self.high < -self.margin


class Speed(Struct, frozen=True):
    """What the engine takes on one core of this machine; CPU time, so that neighbours count little."""

    ms_per_token: float
    """One answer at a time."""
    requests_per_s: float
    """Many side by side, of the task's own prompts."""
    usd_per_1k: float
    """A thousand answers at the stated price of a core's hour."""


class Point(Struct, frozen=True, kw_only=True):
    """One recipe, as far as it got."""

    name: str
    recipe: Recipe
    bits: float
    """A weight, scales included."""
    num_bytes: int
    """Of its matrices; of the file where there is one."""
    kl: float | None = None
    """To the parent, nats a token, on texts of the search split."""
    kl_error: float = 0.0
    nanoseconds: int = 0
    """That its products are expected to take a token; 0 where only size counts."""
    preset: bool = False
    """One format for all, rounded to nearest: what anybody would take."""
    trained: bool = False
    sha256: str = ""
    """Of the file."""
    searched: tuple[Difference, ...] = ()
    """On the search split."""
    num_searched: int = 0
    """Prompts of it that were asked."""
    gated: tuple[Difference, ...] = ()
    """On the gate split."""
    speed: Speed | None = None

    @property
    def passes(self) -> bool:
        """Whether it passes on the search split, in every metric."""
        return bool(self.searched) and all(each.passes for each in self.searched)

    @property
    def hopeless(self) -> bool:
        """Whether the search split shows that it does not pass."""
        return any(each.hopeless for each in self.searched)


def measure_of(target: Target) -> Measure:
    """What is to be small."""
    return {"size": size, "latency": latency, "cost": cost}[target]


def expected_of(target: Target) -> Measure:
    """The same before anything was timed."""
    return size if target == "size" else lambda point: float(point.nanoseconds)


def size(point: Point) -> float:
    """Bytes."""
    return float(point.num_bytes)


def latency(point: Point) -> float:
    """Milliseconds a token; what was not timed is never first."""
    return point.speed.ms_per_token if point.speed else float("inf")


def cost(point: Point) -> float:
    """USD a thousand answers; what was not timed is never first."""
    return point.speed.usd_per_1k if point.speed else float("inf")


def unbeaten(points: Iterable[Point], measure: Measure, loss: Measure) -> list[Point]:
    """Those that no other one equals in both and beats in one, by rising measure; of equals the first."""
    kept: list[Point] = []
    for each in sorted(points, key=lambda point: (measure(point), loss(point))):
        if not kept or loss(each) < loss(kept[-1]):
            kept.append(each)
    return kept


def divergence(point: Point) -> float:
    """KL to the parent; what was not looked at comes last."""
    return float("inf") if point.kl is None else point.kl


def layers(points: Iterable[Point], measure: Measure, loss: Measure) -> list[list[Point]]:
    """The unbeaten, then those that only they beat, and so on (Srinivas and Deb 1994)."""
    left, found = list(points), []
    while left:
        layer = unbeaten(left, measure, loss)
        found.append(layer)
        taken = {id(each) for each in layer}
        left = [each for each in left if id(each) not in taken]
    return found


def spread(points: Sequence[Point], num: int) -> list[Point]:
    """So many of a row of points, the ends among them, evenly apart."""
    if num >= len(points):
        return list(points)
    if num <= 1:
        return list(points[:num])
    return [points[round(at * (len(points) - 1) / (num - 1))] for at in range(num)]
