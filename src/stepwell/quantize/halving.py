"""Successive halving: many recipes get a little attention, the better half of them more, and so on.

Karnin, Koren and Somekh 2013; Jamieson and Talwalkar 2016. There is no one best here but a best for every size: the
better half are those that the fewest others beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from msgspec import Struct

from stepwell.quantize.frontier import Measure, Point, divergence, layers, spread


class Rung(Struct, frozen=True):
    """One round: so many recipes are looked at, on so many rows."""

    num: int
    rows: int


def rungs(num: int, finalists: int, rows: int, *, least_rows: int = 16) -> list[Rung]:
    """Rounds, each of half as many recipes on twice the rows: the last on all rows, of at least the finalists."""
    halvings = 0
    while ceil(num / 2 ** (halvings + 1)) >= finalists and rows >> (halvings + 1) >= least_rows:
        halvings += 1
    return [Rung(ceil(num / 2**at), rows >> (halvings - at)) for at in range(halvings + 1)]


def better(points: Sequence[Point], num: int, measure: Measure, loss: Measure) -> list[Point]:
    """So many that the fewest others beat; of those that are equal in this, ones of all sizes."""
    kept: list[Point] = []
    for layer in layers(points, measure, loss):
        kept += spread(layer, num - len(kept))
        if len(kept) >= num:
            break
    return kept


def promising(points: Sequence[Point], num: int, measure: Measure) -> list[Point]:
    """Of points with a score: the smallest that may still pass, and the one nearest to the parent as a stay."""
    hopeful = sorted((each for each in points if not each.hopeless), key=measure)
    if not hopeful:
        return []
    nearest = min(hopeful, key=lambda point: (divergence(point), measure(point)))
    kept = hopeful[: max(1, num - 1)]
    return kept if any(each is nearest for each in kept) else [*kept, nearest]
