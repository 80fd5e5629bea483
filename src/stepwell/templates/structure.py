"""A template's name where it says what the template speaks of: `area+familyFriendly=yes+name`.

A slot alone is a blank, or something selected by; a slot with a value is said in fixed text, for readers who have
that value. Values are written as in URLs, so that names stay names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from msgspec import Struct

from stepwell.templates.escape import clean
from stepwell.templates.schema import Schema

Structure = dict[str, str | None]
"""Slots, each with its fixed value or None."""


def name(structure: Mapping[str, str | None]) -> str:
    """The name of a structure."""
    parts = (slot if value is None else f"{slot}={quote(value, safe=' ')}" for slot, value in sorted(structure.items()))
    return "+".join(parts)


def read(text: str) -> Structure:
    """The structure that a name says, whether or not a schema has its slots."""
    parts = (part.partition("=") for part in text.split("+"))
    return {slot: unquote(value) if equals else None for slot, equals, value in parts}


def parse(text: str, schema: Schema) -> Structure | None:
    """The structure of a name, or None where it is just a name."""
    structure = read(text)
    known = {slot.name for slot in schema.slots}
    return structure if set(structure) <= known else None


class Index(Struct, frozen=True):
    """Templates by the slots that they speak of, the one with most fixed values first."""

    by_slots: dict[frozenset[str], tuple[tuple[Structure, str], ...]]

    def find(self, values: Mapping[str, object]) -> str | None:
        """The template that says exactly what a reader's values say, or None."""
        given = frozenset(slot.partition(".")[0] for slot, value in values.items() if value not in (None, ""))
        for fixed, text in self.by_slots.get(given, ()):
            if all(_same(values[slot], value) for slot, value in fixed.items()):
                return text
        return None


def index(names: Iterable[str]) -> Index:
    """The index of a bundle's templates."""
    found: dict[frozenset[str], list[tuple[Structure, str]]] = {}
    for text in names:
        structure = read(text)
        fixed: Structure = {slot: value for slot, value in structure.items() if value is not None}
        found.setdefault(frozenset(structure), []).append((fixed, text))
    return Index({slots: tuple(sorted(each, key=lambda one: (-len(one[0]), one[1]))) for slots, each in found.items()})


def _same(value: object, fixed: str | None) -> bool:
    return (clean(value) if isinstance(value, str) else str(value)) == fixed
