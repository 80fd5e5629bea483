"""Texts for structures that nobody has written: a text that says part of the facts, and sentences that say the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from stepwell.templates.structure import Structure, read

MAX_EXTRAS = 3
MAX_COMPOSED = 24

Known = Mapping[str, Sequence[str]]
"""Sources by structure. Only plain patterns can be put together."""


def composed(wanted: Structure, bases: Known, extras: Known) -> list[str]:
    """Sources that say all that is wanted: one base and as few extras as will do; empty where they cannot.

    `wanted` gives every slot its value, or None for one that is a blank in any case. A base or an extra may be used
    where each of its fixed values is the one that is wanted.
    """
    usable = [(frozenset(read(name)), sources) for name, sources in extras.items() if fits(read(name), wanted)]
    usable.sort(key=lambda each: -len(each[0]))
    found: list[str] = []
    for name, sources in sorted(bases.items(), key=lambda each: -len(read(each[0]))):
        if len(found) >= MAX_COMPOSED:
            break
        if fits(read(name), wanted) and (tail := rest(frozenset(wanted) - frozenset(read(name)), usable)) is not None:
            plain = (source for source in sources if not source.startswith("."))
            found += [" ".join([source, *tail]) for source in islice(plain, 4)]
    return found


def fits(part: Structure, wanted: Structure) -> bool:
    """Whether a part says only what is wanted."""
    return all(slot in wanted and (value is None or value == wanted[slot]) for slot, value in part.items())


def rest(lacking: frozenset[str], usable: Sequence[tuple[frozenset[str], Sequence[str]]]) -> list[str] | None:
    """Sentences that say exactly what lacks, the longest first; None where they cannot."""
    if not lacking:
        return []
    tail: list[str] = []
    for slots, sources in usable:
        if slots <= lacking and len(tail) < MAX_EXTRAS and sources and not sources[0].startswith("."):
            tail.append(sources[0])
            lacking -= slots
            if not lacking:
                return tail
    return None
