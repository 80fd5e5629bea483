"""What a run has to tell: frozen values between the ledger and the table, the picture and the score."""

from __future__ import annotations

from msgspec import Struct

STEPS = ("template", "cache", "specialist", "large")
"""The stairs, cheapest first: the order of every table and every stack of colours."""


class Descent(Struct, frozen=True, kw_only=True):
    """One request's way down, as the ledger has it: (step, seconds) of each visit, and where it was answered."""

    visits: tuple[tuple[str, float], ...]
    step: str
    """Where it was answered; empty where it was not."""
    seconds: float
    usd: float
    large_usd: float


class Row(Struct, frozen=True, kw_only=True):
    """One step's part of the traffic; of the whole traffic where `step` is empty."""

    step: str
    num: int
    share: float
    p50_s: float
    p99_s: float
    tokens: int
    usd: float
    large_usd: float

    @property
    def saved_usd(self) -> float:
        """What not asking the large model has saved."""
        return self.large_usd - self.usd


class Example(Struct, frozen=True):
    """One answer as a reader saw it."""

    mr: str
    text: str
    step: str
    seconds: float


class Story(Struct, frozen=True, kw_only=True):
    """A whole run."""

    title: str
    descents: tuple[Descent, ...]
    rows: tuple[Row, ...]
    total: Row
    examples: tuple[Example, ...]
    num_distinct: int
    num_errors: int
    wall_s: float
    priced_as: str
    """As which model the large one is priced, and since when the price holds."""
