"""From neighbours to one candidate: they vote, the guard looks at the key they chose, and may have them vote again."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from stepwell.cache.features import Near, Vector, Weighed, weigh
from stepwell.cache.guard import slot_difference, vetoes
from stepwell.cache.metric import Metric
from stepwell.cache.vouch import vouches
from stepwell.facts.facts import Facts

MOST_VOTES = 4
"""Votes after which a question that the guard keeps objecting to counts as new."""


UNVOUCHED = "unvouched"
"""Nothing is wrong with this wording, but it lacks what was wrong with a nearer one of the same answer."""


class Chosen(Struct, frozen=True, gc=False):
    """What the neighbours speak for. `slots`: kinds of the values that must be put in; `vetoes`: what forbids it."""

    row: int
    features: tuple[float, ...]
    slots: tuple[str, ...] = ()
    vetoes: tuple[str, ...] = ()


def choose(
    query: Vector, asked: Facts, near: Near, facts_of: Callable[[int], Facts], metric: Metric | None, *, num_keys: int
) -> Chosen | None:
    """The candidate among the neighbours; None where there is none.

    The guard reads only keys that would answer (`facts_of` a row), so its cost does not grow with the neighbours.
    """
    allowed = [True] * len(near.answers)
    fallback: Chosen | None = None
    objected: dict[bytes, list[Facts]] = {}
    for _ in range(MOST_VOTES):
        weighed = weigh(query, msgspec.structs.replace(near, allowed=tuple(allowed)), metric, num_keys)
        if weighed is None:
            return fallback
        kept = facts_of(weighed.row)
        others = objected.setdefault(near.answers[weighed.row], [])
        found = vetoes(asked, kept) or tuple(UNVOUCHED for other in others if not vouches(asked, kept, other))[:1]
        if not found:
            return Chosen(weighed.row, weighed.features)
        others.append(kept)
        fallback = better(fallback, vetoed(weighed, found, asked, kept))
        allowed[weighed.row] = False
    return fallback


def vetoed(weighed: Weighed, found: tuple[str, ...], asked: Facts, kept: Facts) -> Chosen:
    """A candidate that the guard objects to; where only values differ, another answer's text may take them."""
    return Chosen(weighed.row, weighed.features, slot_difference(asked, kept), found)


def better(one: Chosen | None, other: Chosen) -> Chosen:
    """The first that values can be put into; else the first."""
    return other if one is None or (other.slots and not one.slots) else one
