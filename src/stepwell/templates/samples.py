"""Values that a template is tried with: every one where there are few, the telling ones where there are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import cast

from stepwell.templates import cldr
from stepwell.templates.numerals import category, rounded
from stepwell.templates.schema import Schema, Slot, Value, Values

MAX_EXHAUSTIVE = 512
"""Up to so many combinations all are tried; above, every pair of values of every two slots."""
SMALL_RANGE = 24
"""Up to so many whole numbers all are tried."""
PROBED = 211
"""Whole numbers that are looked at for plural categories: CLDR's rules repeat after 100, Welsh and Maltese before."""


def combinations_of(schema: Schema, slots: Sequence[str], locale: str) -> Iterator[Values]:
    """Values for these slots that show whatever a template may do with them."""
    names = sorted(slots)
    values = [telling(schema, name, locale) for name in names]
    total = 1
    for each in values:
        total *= len(each)
    rows = product(*values) if total <= MAX_EXHAUSTIVE else pairwise(values)
    for row in rows:
        yield dict(zip(names, row, strict=True))


def telling(schema: Schema, name: str, locale: str) -> list[Value]:
    """Every value of a small slot; of a large one its ends, one of each plural category, and odd ones."""
    slot = cast("Slot", schema.slot(name))
    form = name.partition(".")[2]
    if form:
        return list(dict.fromkeys(forms[form] for forms in slot.form_values.values() if form in forms)) or ["Xyz"]
    if slot.kind in {"number", "money"}:
        return numbers(slot, locale)
    if slot.kind == "date":
        return days(str(slot.low), str(slot.high))
    # An article shows itself before a vowel and before a consonant.
    return list(slot.values) or ["Ada", "Bo", "X" + "x" * (slot.max_chars - 1)]


def numbers(slot: Slot, locale: str) -> list[Value]:
    """All of a small range; of a large one its ends, one number of each plural category, and one with decimals."""
    low, high = float(slot.low), float(slot.high)
    if not slot.decimals and high - low < SMALL_RANGE:
        return list(range(int(low), int(high) + 1))
    found: dict[Value, None] = {}
    for value in (low, high, *((low + high) / 2,) * bool(slot.decimals)):
        found[tidy(round(value, slot.decimals))] = None
    for ordinal in (False, True):
        seen = set()
        rules = cldr.rules(locale, ordinal=ordinal)
        for value in range(int(max(low, 0)), int(min(high, max(low, 0) + PROBED)) + 1):
            name = category(*rounded(value, 0, 0), rules)
            if name not in seen:
                seen.add(name)
                found[value] = None
    return list(found)


def tidy(value: float) -> Value:
    """A whole number without its point."""
    return int(value) if value == int(value) else value


def days(low: str, high: str) -> list[Value]:
    """The first and the last day, and a long name between them where there is one."""
    year = low[:4]
    middle = [day for day in (f"{year}-09-22", f"{year}-12-31") if low < day < high]
    return list(dict.fromkeys([low, *middle, high]))


def pairwise(values: Sequence[Sequence[Value]]) -> Iterator[tuple[Value, ...]]:
    """Rows in which every two columns meet with every pair of their values: greedy, after AETG (Cohen et al. 1997)."""
    open_pairs = {
        (a, x, b, y)
        for a, b in combinations(range(len(values)), 2)
        for x in range(len(values[a]))
        for y in range(len(values[b]))
    }
    while open_pairs:
        a, x, b, y = min(open_pairs)
        row: dict[int, int] = {a: x, b: y}
        for column in range(len(values)):
            if column not in row:
                row[column] = max(range(len(values[column])), key=lambda at: gain(row, column, at, open_pairs))
        open_pairs -= {(p, row[p], q, row[q]) for p, q in combinations(range(len(values)), 2)}
        yield tuple(values[column][row[column]] for column in range(len(values)))


def gain(row: dict[int, int], column: int, at: int, open_pairs: set[tuple[int, int, int, int]]) -> int:
    """How many open pairs a value would close."""
    pairs = ((*sorted([(other, value), (column, at)]),) for other, value in row.items())
    return sum((p, x, q, y) in open_pairs for (p, x), (q, y) in pairs)
