"""Slots drawn by chance: weighted choices, ranges, names from lists of parts, values that hang on other slots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from random import Random
from typing import Annotated

from msgspec import Meta, field

from stepwell.errors import ConfigError, DistillError
from stepwell.synth.slots import write
from stepwell.toml import Section, nearest

Weighted = dict[str, Annotated[float, Meta(gt=0)]] | tuple[str, ...]
"""Choices with their weights, or choices that are equally likely."""
LEAF = "leaf"
"""The slot that a taxonomy fills."""
MAX_LISTED = 10_000
"""Names that are counted one by one."""
MAX_VAIN = 2_000
"""Draws in a row that bring nothing new before it is said that there is no more."""


class Slot(Section, frozen=True):
    """`[synth.slots.NAME]`: one of choices, parts, range or values says what it may be."""

    choices: Weighted | None = None
    parts: tuple[tuple[str, ...], ...] = ()
    """One of each list, joined: `[["The "], ["Blue ", "Old "], ["Anchor", "Mill"]]`."""
    range: tuple[float, float] | None = None
    """From and to, both included."""
    step: Annotated[float, Meta(gt=0)] = 1.0
    values: dict[str, Weighted] = field(default_factory=dict)
    """Choices by what the slot `by` says."""
    by: str = ""
    when: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """There only where these slots have one of these values."""
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """How often it is there at all."""
    text: str = "{}"
    """How a value is written: `{} out of 5`."""


def check(slots: Mapping[str, Slot]) -> None:
    """Raise ConfigError, with its field, where a slot says too little, too much, or hangs on one that comes later."""
    known: list[str] = []
    for name, slot in slots.items():
        place = f"synth.slots.{name}"
        named = [kind for kind in ("choices", "parts", "range", "values") if getattr(slot, kind)]
        if len(named) != 1:
            what = f"both {named[0]} and {named[1]}" if named else "none of them"
            raise ConfigError(f"a slot has one of choices, parts, range, values; this has {what}", field=place)
        if bool(slot.by) != bool(slot.values):
            raise ConfigError("values and by belong together", field=place)
        if any(not part for part in slot.parts) or not all(slot.values.values()):
            raise ConfigError("an empty list: nothing can be drawn from it", field=place)
        if slot.range and slot.range[0] > slot.range[1]:
            raise ConfigError(f"the range ends at {slot.range[1]:g}, before it begins", field=place)
        for other in [*slot.when, *([slot.by] if slot.by else [])]:
            if other not in known:
                where = "comes after it: move it up" if other in slots else f"is no slot{nearest(other, slots)}"
                raise ConfigError(f"hangs on {other!r}, which {where}", field=place)
        known.append(name)


def draw(slots: Mapping[str, Slot], chance: Random) -> dict[str, str]:
    """One value for each slot that is there."""
    drawn: dict[str, str] = {}
    for name, slot in slots.items():
        there = all(drawn.get(other) in allowed for other, allowed in slot.when.items())
        if chance.random() < slot.share and there:
            value = value_of(slot, drawn, chance)
            if value is not None:
                drawn[name] = slot.text.replace("{}", value)
    return drawn


def value_of(slot: Slot, drawn: Mapping[str, str], chance: Random) -> str | None:
    """A value as it is written; None where the slot that it hangs on is not there or has another value."""
    if slot.choices:
        return chosen(slot.choices, chance)
    if slot.parts:
        return "".join(chance.choice(part) for part in slot.parts)
    if slot.range:
        low, high = slot.range
        return f"{low + slot.step * chance.randint(0, math.floor((high - low) / slot.step + 1e-9)):.10g}"
    options = slot.values.get(drawn.get(slot.by, ""))
    return chosen(options, chance) if options else None


def chosen(options: Weighted, chance: Random) -> str:
    """One of the choices."""
    if isinstance(options, tuple):
        return chance.choice(options)
    return chance.choices(list(options), list(options.values()))[0]


def possible(slot: Slot) -> set[str] | None:
    """Every value that a slot can have, as it is written; None for one of a range, or of very many names."""
    if slot.range or math.prod(map(len, slot.parts)) > MAX_LISTED:
        return None
    if slot.parts:
        values = set(map("".join, product(*slot.parts)))
    elif slot.choices:
        values = set(slot.choices)
    else:
        values = {value for options in slot.values.values() for value in options}
    return {slot.text.replace("{}", value) for value in values}


def sampled(slots: Mapping[str, Slot], num: int, seed: int) -> Iterator[tuple[dict[str, str], int]]:
    """So many different draws, each with the seed that makes it again; fewer raise DistillError."""
    seen: set[str] = set()
    vain = 0
    for number in range(num * MAX_VAIN):
        own = seed * 1_000_003 + number
        drawn = draw(slots, Random(own))  # noqa: S311 - examples, no secrets
        key = write(drawn)
        if drawn and key not in seen:
            seen.add(key)
            vain = 0
            yield drawn, own
            if len(seen) == num:
                return
        vain += 1
        if vain > MAX_VAIN:
            what = f"synth.sampled.rows: {num} different rows are wanted, and the slots give no more than {len(seen)}"
            raise DistillError(f"{what}: ask for fewer, or give the slots more values")


def with_taxonomy(slots: Mapping[str, Slot], leaves: Weighted | None) -> dict[str, Slot]:
    """The slots, with the taxonomy's leaf before them, so that they may hang on it."""
    return {LEAF: Slot(choices=leaves), **slots} if leaves else dict(slots)
