"""What a decision costs beside the embedding: search, votes, guard, promise, at 100,000 keys of one partition.

The keys are Banking77's and CLINC150's vectors with a little noise, under those sets' own texts; the questions are
others made the same way. Everything is called as the gateway calls it, answers' bodies apart. Median CPU of one
question over 2,000, the smallest of three runs.

    python -m bench.cache.decision
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from hashlib import sha256
from random import Random
from statistics import median
from time import process_time_ns

import numpy as np

from bench.cache.index import NUM_KEYS, PARTITION, noisy
from bench.cache.texts import SETS, Vectors
from stepwell.cache.exact import Exact
from stepwell.cache.key import Identity
from stepwell.cache.rows import encode
from stepwell.cache.semantic import Semantic
from stepwell.cache.tags import Tags
from stepwell.index.feed import Feed
from stepwell.index.rows import KEYS, KeyAdded
from stepwell.index.vectors import packed
from stepwell.quality.promise import Promise, Terms
from stepwell.store.memory import Memory
from stepwell.store.memory_store import MemoryStore
from stepwell.types import Answer, Evidence, Label, Proposal

NUM_QUESTIONS, NUM_RUNS, NUM_LABELS = 2000, 3, 400
FOREVER_S = 4e9


class Nobody:
    """An embedder that is not asked."""

    name, num_dimensions = "none", 384


def measure() -> dict[str, float]:
    """`decision_cpu_ms`."""
    semantic = asyncio.run(filled())
    promise = learned()
    return {"decision_cpu_ms": min(decided(semantic, promise) for _ in range(NUM_RUNS))}


def decided(semantic: Semantic, promise: Promise) -> float:
    """Median CPU milliseconds of one question."""
    spent = []
    for vector, text in noisy_texts(NUM_QUESTIONS, 2):
        asked = Identity(exact=b"", partition=PARTITION, text=text, principal=b"")
        began = process_time_ns()
        found = semantic.chosen(vector, asked)
        if found is not None:
            promise.rule("cache", Proposal(Answer(form="json"), Evidence("semantic", "", found[0].features)))
        spent.append(process_time_ns() - began)
    return median(spent) / 1e6


async def filled() -> Semantic:
    """The cache's own reader of a log of so many keys; one answer for every two of them."""
    store = MemoryStore(1 << 30)
    for number, (vector, text) in enumerate(noisy_texts(NUM_KEYS, 0)):
        exact, answer = sha256(b"%d" % number).digest(), sha256(b"a%d" % (number // 2)).digest()
        row = KeyAdded(exact, PARTITION, answer, text, packed(vector).tobytes(), "none", b"", FOREVER_S)
        await store.append(KEYS, encode(row), FOREVER_S)
    tags = Tags(store, keep_s=60, shared=False)
    semantic = Semantic(Nobody(), Exact(Memory(1 << 20), store, tags), Feed(store), deadline_s=1)  # type: ignore[arg-type]
    await semantic.catch_up()
    while semantic.feed.index.growing:
        await asyncio.sleep(0.1)
        semantic.feed.index.grow()
    return semantic


def noisy_texts(num: int, seed: int) -> Iterator[tuple[Vectors, str]]:
    """Vectors of real texts, moved a little, each with its text."""
    texts = [text for each in SETS.values() for text, _ in each()]
    rows = np.random.default_rng(seed).integers(0, len(texts), num)  # as `noisy` draws them
    return ((vector, texts[row]) for vector, row in zip(noisy(num, seed), rows, strict=True))


def learned() -> Promise:
    """A promise that has something to compare with."""
    promise, chance = Promise(Terms(0.02), Random(2)), Random(3)
    for number in range(NUM_LABELS):
        features = tuple(chance.random() for _ in range(24))
        promise.learn(Label("cache", b"", features, number % 9 > 0, 0.9, 1.0, False, 0.0, 1))  # noqa: FBT003
    promise.refit()
    return promise


if __name__ == "__main__":
    print(json.dumps(measure()))
