"""Second opinions: may a wording answer after the guard objected to a nearer one of the same answer.

Only one that has what the first lacked. Otherwise what is near to one key, and vetoed there, would be answered through
a key further off, which differs so much that no single difference shows: that let every second near-miss through.
"""

from __future__ import annotations

from collections.abc import Callable

from stepwell.cache.guard import VALUES, apart, opposites, tells, vetoes
from stepwell.facts.facts import Facts
from stepwell.facts.words import NEGATIONS

Agree = Callable[[Facts, Facts, Facts], bool]
"""Asked, kept, and the kept wording that was objected to."""


def vouches(asked: Facts, kept: Facts, objected: Facts) -> bool:
    """Whether a wording agrees with the asked one in all that the guard objected to in another of the same answer."""
    return all(AGREE[name](asked, kept, objected) for name in vetoes(asked, objected))


def _same_values(kind: str) -> Agree:
    def agree(asked: Facts, kept: Facts, _objected: Facts) -> bool:
        here = {value.norm for value in asked.values if value.kind == kind}
        return here == {value.norm for value in kept.values if value.kind == kind}

    return agree


def _says(asked: Facts, kept: Facts, objected: Facts) -> bool:
    """What the asked wording has in the one place is there; or, where it has less, what it lacks is not."""
    here, there = apart(asked.words, objected.words)
    mine = {word for word in here if word in asked.content or tells(word)} - set(there)
    theirs = {word for word in there if word in objected.content or tells(word)} - set(here)
    return mine <= set(kept.words) if mine else theirs.isdisjoint(kept.words)


def _negates(asked: Facts, kept: Facts, objected: Facts) -> bool:
    """The same words are negated; or, where nothing is, not those that the other wording negated."""
    mine, theirs = _negated(asked), _negated(kept)
    return mine <= theirs if mine else theirs.isdisjoint(_negated(objected))


def _negated(facts: Facts) -> frozenset[str]:
    """The words behind each negation."""
    return frozenset(word for at, word in enumerate(facts.words[1:]) if facts.words[at] in NEGATIONS)


def _never(_asked: Facts, _kept: Facts, _objected: Facts) -> bool:
    return False


AGREE: dict[str, Agree] = {
    **{kind: _same_values(kind) for kind in (*VALUES, "code", "quote", "entity")},
    "direction": lambda asked, kept, objected: opposites(asked, objected) <= kept.content | kept.poles,
    "negation": _negates,
    "question": lambda asked, kept, _objected: asked.asks == kept.asks,
    "swap": _says,
    "more": _says,
    "order": _never,
    "language": _never,
    "long": _never,
}
"""For each veto: whether another wording agrees with the asked one in what was objected to."""
