"""What templates could answer: the share of requests that a bundle says, and what to write next, by traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from stepwell.templates.fill import Filled, Filler
from stepwell.templates.structure import index


class Missing(Struct, frozen=True):
    """A structure that nobody can say yet."""

    name: str
    num: int
    share: float


class Coverage(Struct, frozen=True):
    """What came of a file of requests."""

    num: int
    answered: int
    unfit: int
    """There is a text, but not with these values."""
    other: int
    """No structured input: for the steps below."""
    missing: tuple[Missing, ...]
    """By traffic, most first."""

    @property
    def share(self) -> float:
        """Part of all requests that is answered, 0 to 1."""
        return self.answered / self.num if self.num else 0.0


def coverage(filler: Filler, requests: Iterable[Mapping[str, Any] | None]) -> Coverage:
    """Try every request: its values, or None where it has none."""
    names = index(filler.names)
    missing: Counter[str] = Counter()
    num = answered = unfit = other = 0
    for values in requests:
        num += 1
        if not values:
            other += 1
            continue
        name = names.find(values)
        if name is None:
            missing["+".join(sorted(slot for slot, value in values.items() if value not in (None, "")))] += 1
        elif isinstance(filler.fill(name, values), Filled):
            answered += 1
        else:
            unfit += 1
    told = tuple(Missing(name, count, count / num) for name, count in missing.most_common())
    return Coverage(num, answered, unfit, other, told)
