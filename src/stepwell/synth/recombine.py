"""New prompts out of seen ones: the slots of one, values of others. What nobody asked yet, in the shape people ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from stepwell.errors import DistillError
from stepwell.synth import slots
from stepwell.synth.row import Row, made

Donors = defaultdict[str, list[tuple[object, Row]]]
"""For each slot the values that it has, and the rows that have them."""
MAX_VAIN = 2_000
"""Draws in a row that bring nothing new before it is said that there is no more."""
KEPT = 0.25
"""How often a slot keeps its own value."""


def recombined(rows: Sequence[Row], num: int, *, licence: str, seed: int) -> list[Row]:
    """So many prompts that are not among `rows`, each with its parents. Raises DistillError where there are fewer."""
    read = [(row, found) for row in rows if (found := slots.read(row.prompt))]
    donors: Donors = defaultdict(list)
    for row, prompt in read:
        for name, value in prompt.slots.items():
            donors[name].append((value, row))
    seen = {slots.facts_key(row.prompt) for row, _ in read}
    made_: list[Row] = []
    vain = 0
    for number in range(num * MAX_VAIN if read else 0):
        own = seed * 1_000_003 + number
        parent, prompt = read[number % len(read)]
        row = one(parent, prompt, donors, licence, own)
        key = slots.facts_key(row.prompt)
        vain += 1
        if key not in seen and num_different(row.slots) >= num_different(prompt.slots):
            seen.add(key)
            made_.append(row)
            vain = 0
        if len(made_) == num:
            return made_
        if vain > MAX_VAIN:
            break
    what = f"{num} new prompts are wanted, and the slots of {len(read)} seen ones give {len(made_)}"
    raise DistillError(f"synth.recombined.rows: {what}: ask for fewer, or add real rows with slots")


def num_different(values: Mapping[str, object]) -> int:
    """How many values are different: a place is not near itself."""
    return len(set(map(str, values.values())))


def one(row: Row, prompt: slots.Read, donors: Donors, licence: str, seed: int) -> Row:
    """A prompt with some of its values changed for those of other rows."""
    chance = Random(seed)  # noqa: S311 - examples, no secrets
    values: dict[str, object] = {}
    parents = {row.id: row}
    for name, own in prompt.slots.items():
        value, donor = chance.choice(donors[name]) if chance.random() >= KEPT else (own, row)
        values[name] = value
        parents[donor.id] = donor
    generation = 1 + max(parent.generation for parent in parents.values())
    return made(
        slots.with_slots(prompt, values),
        "",
        source="recombined",
        licence=licence,
        slots=values,
        seed=seed,
        params={"kept": KEPT},
        parents=tuple(parents),
        generation=generation,
    )
