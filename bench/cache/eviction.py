"""Which policy lets go of the least money, and whether the store finds that out from a sample of its own past.

Demands: Zipf over 100,000 answers whose sizes and prices are those of the requests of AzureLLMInferenceTrace_conv;
Zipf over the questions of E2E with their texts' sizes and prices; the KV blocks of Mooncake's conversation trace, all
alike. Memory: 1 % and 10 % of all distinct bytes. The first half of a demand is noted and picked from, the second half
counts. The pace of `dearest`'s clock was tried on all four demands: none of them is new to it.

    python -m bench.cache.eviction
"""

from __future__ import annotations

import csv
import json
import os
from hashlib import sha256
from pathlib import Path

import numpy as np

from stepwell.cache.policies import POLICIES
from stepwell.cache.simulate import Event, Trace, compare, pick, simulate
from stepwell.ledger.prices import load, price_of
from stepwell.store.order import Weight
from stepwell.types import Usage

ENTRY_BYTES, BYTES_A_TOKEN = 400, 4
PARTS = (0.01, 0.1)
NUM_ASKED = 200_000


def measure() -> dict[str, float]:
    """The picked policy's cost-weighted miss ratio, by LRU's and by the best one's: the worst over all demands."""
    against_lru, against_best = [], []
    print(f"{'demand':<12} {'memory':>6}  " + "  ".join(f"{name:>9}" for name in POLICIES) + "  picked")
    for name, events in demands(Path(os.environ["STEPWELL_DATA"])).items():
        distinct_bytes = sum(weight.num_bytes for weight in dict(events).values())
        for part in PARTS:
            ratios, picked = judged(events, int(distinct_bytes * part))
            against_lru.append(ratios[picked] / ratios["lru"])
            against_best.append(ratios[picked] / min(ratios.values()))
            row = "  ".join(f"{ratio:9.4f}" for ratio in ratios.values())
            print(f"{name:<12} {part:>6.0%}  {row}  {picked}", flush=True)
    return {"evict_cost_vs_lru": float(np.mean(against_lru)), "evict_picked_vs_best": max(against_best)}


def judged(events: list[Event], capacity_bytes: int) -> tuple[dict[str, float], str]:
    """Miss ratios of every policy on the second half, and which one the first half would have had picked."""
    middle = len(events) // 2
    trace = Trace()
    for event in events[:middle]:
        trace.note(*event)
    picked = pick(compare(trace, capacity_bytes))
    return {name: simulate(events[middle:], begin, capacity_bytes) for name, begin in POLICIES.items()}, picked


def demands(folder: Path) -> dict[str, list[Event]]:
    """What is asked, in order."""
    chance = np.random.default_rng(0)
    price = price_of(load(""), "gpt-4o")
    with (folder / "plan" / "AzureLLMInferenceTrace_conv.csv").open() as file:
        tokens = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]
    answers = [tokens[at] for at in chance.integers(len(tokens), size=100_000)]
    lines = (folder / "e2e" / "train.jsonl").read_text().splitlines()
    texts = [(len(told["mr"]) // 4, len(told["refs"][0]) // 4) for told in map(json.loads, lines)]
    blocks = (folder / "plan" / "conversation_trace.jsonl").read_text().splitlines()
    one = Weight(1000, 1.0)

    def zipf(power: float, about: list[tuple[int, int]]) -> list[Event]:
        weights = [Weight(ENTRY_BYTES + BYTES_A_TOKEN * each[1], price.of(Usage(*each))) for each in about]
        share = 1 / np.arange(1, len(about) + 1) ** power
        asked = chance.choice(len(about), NUM_ASKED, p=share / share.sum())
        return [(digest(int(at)), weights[at]) for at in asked]

    return {
        "zipf 0.8": zipf(0.8, answers),
        "zipf 1.0": zipf(1.0, answers),
        "e2e zipf 1.0": zipf(1.0, texts),
        "mooncake": [(digest(block), one) for line in blocks for block in json.loads(line)["hash_ids"]],
    }


def digest(number: int) -> bytes:
    """A key."""
    return sha256(b"%d" % number).digest()


if __name__ == "__main__":
    print(json.dumps(measure()))
