"""What a specialist costs: making it, an answer of it, and after how many answers it has paid for itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter

import msgspec
from msgspec import Struct

from stepwell.campaigns.run import Folders, Work

FILE = "cost.json"
NUM_ANSWERS = 10_000_000
"""Over so many answers the making is spread."""
HOUR_S = 3600
THOUSAND = 1000


class Cost(Struct, frozen=True):
    """What a stage took; a stage that was cut short and went on counts all its parts that came to a pause."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    calls: int = 0
    """Of a teacher that is paid for."""
    usd: float = 0.0
    """Paid for them."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.cpu_s + other.cpu_s, self.wall_s + other.wall_s, self.calls + other.calls, self.usd + other.usd
        )


class Economy(Struct, frozen=True, kw_only=True):
    """A specialist's price beside the model whose work it does."""

    making_usd: float
    """Processor time at its price, and what the teacher was paid."""
    answer_usd: float
    """Processor time of an answer."""
    large_answer_usd: float
    usd_per_1k_answers: float
    """With the making spread over ten million answers."""
    break_even_answers: int | None
    """None: it never pays."""


def cpu_s() -> float:
    """Processor time of this process and the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(work: Work) -> Work:
    """The same work, with what it took beside its files. What was spent before a kill is not known, and not counted."""

    def noted(before: Folders, out: Path) -> None:
        cpu, wall = cpu_s(), perf_counter()
        try:
            work(before, out)
        finally:
            note(out, Cost(cpu_s() - cpu, perf_counter() - wall))

    return noted


def note(folder: Path, cost: Cost) -> None:
    """Add to what a stage took; whole or not at all."""
    part = folder / f".{FILE}.{os.getpid()}"
    part.write_bytes(msgspec.json.encode(of(folder) + cost))
    part.replace(folder / FILE)


def of(folder: Path) -> Cost:
    """What a stage took so far."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Cost)
    except FileNotFoundError:
        return Cost()


def total(folders: Iterable[Path]) -> Cost:
    """What several stages took."""
    return sum((of(folder) for folder in folders), Cost())


def economy(making: Cost, answer_cpu_s: float, large_answer_usd: float, cpu_hour_usd: float) -> Economy:
    """Prices from times; `large_answer_usd` is what the large model asks for the same answer."""
    made_usd = making.usd + making.cpu_s * cpu_hour_usd / HOUR_S
    answer_usd = answer_cpu_s * cpu_hour_usd / HOUR_S
    saved_usd = large_answer_usd - answer_usd
    return Economy(
        making_usd=made_usd,
        answer_usd=answer_usd,
        large_answer_usd=large_answer_usd,
        usd_per_1k_answers=THOUSAND * (answer_usd + made_usd / NUM_ANSWERS),
        break_even_answers=int(made_usd / saved_usd) + 1 if saved_usd > 0 else None,
    )
