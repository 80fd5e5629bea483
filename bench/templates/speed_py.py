"""How many texts one core fills in Python: plural, ordinal, select and number in one message of 24 variants."""

from __future__ import annotations

import statistics
from time import process_time

from bench.templates.audience import bundle_of_24
from stepwell.templates.fill import Filled, load

ROUNDS = 7
NUM_READERS, TIMES = 2_000, 40


def measure() -> dict[str, int]:
    """Texts a second of CPU time, median of some rounds."""
    filler = load(bundle_of_24())
    readers = [
        (
            f"reader-{at}",
            {"name": f"Name {at}", "wins": at * 31 % 977, "place": at % 99 + 1, "kind": ("cup", "league")[at % 2]},
        )
        for at in range(NUM_READERS)
    ]
    rates = []
    for _ in range(ROUNDS):
        began = process_time()
        for _ in range(TIMES):
            for reader, values in readers:
                filler.fill("result", values, reader)
        rates.append(TIMES * NUM_READERS / (process_time() - began))
    assert all(isinstance(filler.fill("result", values, reader), Filled) for reader, values in readers)  # noqa: S101
    print(f"  {statistics.median(rates):,.0f} texts a CPU second ({min(rates):,.0f} to {max(rates):,.0f})")
    return {"py_fills_per_cpu_s": round(statistics.median(rates))}
