"""Hits under a promise that is held: every text of a set once, in random order, from an empty cache, oracle labels.

The gateway's own code decides (`Semantic.chosen`: index, metric, votes, guard; then the promise), on vectors of the
embedder that ships; an intent stands for an answer, so a judge never errs. A hit is a request answered without the
large model, right or wrong; audited requests count as misses. A promise is held where the mean error share over the
orders, and 1.645 standard deviations, is no more than what was promised. What is believed of the promise's curve
beforehand is measured on one set and used on the other; a last run uses what ships. Peers run on the same vectors.

    STEPWELL_DATA=... python -m bench.cache.streams [banking|clinc] [orders]
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from hashlib import sha256
from random import Random
from statistics import mean, stdev

import numpy as np
from msgspec import Struct

from bench.cache import peers, texts
from bench.cache.texts import Vectors
from stepwell.cache.exact import Exact
from stepwell.cache.features import VERSION
from stepwell.cache.key import Identity
from stepwell.cache.metric import due
from stepwell.cache.semantic import Semantic
from stepwell.cache.tags import Tags
from stepwell.index.feed import Feed
from stepwell.index.rows import KeyAdded
from stepwell.index.vectors import packed
from stepwell.quality.bend import bending
from stepwell.quality.promise import BELIEF, Belief, Bend, Promise, Terms
from stepwell.store.memory import Memory
from stepwell.store.memory_store import MemoryStore
from stepwell.types import Answer, Evidence, Label, Proposal

ERRORS = {"d1": 0.01, "d2": 0.02, "d5": 0.05}
NUM_ORDERS = 10
NUM_SHIPPED_ORDERS = 4
NUM_PROCESSES = 2
PER_HIT = 0.02
NUM_REPLAYS, NUM_BEFORE, LATE = 50, 2500, (500, 1500)
"""Replays with new intents, requests before they come, and which ones after that are looked at."""
NUM_PEERS = 6000
OTHER = {"banking": "clinc", "clinc": "banking"}
NUM_BELIEF_ORDERS = 2
STEP, PARTITION = "cache", b"p" * 32
FOREVER_S = 4e9
QUANTILE = 1.645
"""Of the normal distribution: 95 of 100 orders stay below."""


class Set(Struct, frozen=True):
    """Texts, their vectors, and the number of each one's right answer."""

    texts: tuple[str, ...]
    vectors: Vectors
    answers: tuple[bytes, ...]


class Played(Struct, frozen=True):
    """One stream: which requests were served, which of these wrongly, and the log odds of all with their truth."""

    served: list[bool]
    wrong: list[bool]
    num_audits: int
    num_keys: int
    odds: list[tuple[float, bool]] = []


class Score(Struct, frozen=True):
    """Several streams: shares of the requests, means and standard deviation over the orders."""

    hits: float
    error: float
    spread: float
    hit_error: float
    hit_spread: float
    audits: float

    def bound(self) -> float:
        """Below it the error share stays in 95 of 100 orders."""
        return self.error + QUANTILE * self.spread

    def hit_bound(self) -> float:
        """The same of the share of hits that are wrong."""
        return self.hit_error + QUANTILE * self.hit_spread


class Nobody:
    """An embedder that is not asked."""

    name, num_dimensions = "none", 384


@cache
def loaded(name: str) -> Set:
    """A set, as it is needed here."""
    rows = texts.SETS[name]()
    names = {intent: sha256(intent.encode()).digest() for _, intent in rows}
    return Set(tuple(text for text, _ in rows), texts.vectors(name), tuple(names[intent] for _, intent in rows))


def order(name: str, seed: int) -> list[int]:
    """Every text once."""
    found: list[int] = np.random.default_rng(seed).permutation(len(loaded(name).texts)).tolist()
    return found


def play(name: str, seed: int, terms: Terms, belief: Belief = BELIEF, rows: Sequence[int] = ()) -> Played:
    """One stream through the gateway's decision: these rows, or every text once."""
    data, semantic, promise = loaded(name), empty(), Promise(terms, Random(seed), belief)
    index, spaces = semantic.feed.index, semantic.spaces
    served: list[bool] = []
    wrong: list[bool] = []
    odds: list[tuple[float, bool]] = []
    for number, row in enumerate(rows or order(name, seed), 1):
        promise.request()
        hit, right = asked(data, row, semantic, promise, odds)
        served.append(hit)
        wrong.append(hit and not right)
        if not hit:
            index.add([(number, key(data, row))])
            if due(len(index), spaces.get(PARTITION)):
                asyncio.run(spaces.refresh(index))
        if promise.due():
            promise.refit()
    return Played(served, wrong, promise.num_audits, len(index), odds)


def asked(
    data: Set, row: int, semantic: Semantic, promise: Promise, odds: list[tuple[float, bool]]
) -> tuple[bool, bool]:
    """Ask one text: whether it was a hit, and whether the proposal was right; what went down teaches the promise."""
    identity = Identity(exact=b"", partition=PARTITION, text=data.texts[row], principal=b"")
    found = semantic.chosen(data.vectors[row], identity)
    if found is None or found[0].vetoes:
        return False, False
    features, right = found[0].features, found[1].answer == data.answers[row]
    ruling = promise.rule(STEP, Proposal(Answer(form="json"), Evidence("semantic", "", features)))
    learned = promise.fit.steps.get(STEP)
    if learned is not None:
        odds.append((sum(one * two for one, two in zip(learned.coefficients, features, strict=True)), right))
    if ruling.verdict == "serve":
        return True, right
    promise.learn(
        Label(
            step=STEP, partition=PARTITION, features=features, right=right, predicted=ruling.right, share=ruling.share,
            would_serve=ruling.verdict == "audit", at_s=0.0, version=VERSION,
        )
    )  # fmt: skip
    return False, right


def key(data: Set, row: int) -> KeyAdded:
    """A wording with the answer that it got from below."""
    text = data.texts[row]
    exact = sha256(b"%d" % row).digest()
    return KeyAdded(
        exact, PARTITION, data.answers[row], text, packed(data.vectors[row]).tobytes(), "none", b"", FOREVER_S
    )


def empty() -> Semantic:
    """A cache by meaning that knows nothing."""
    store = MemoryStore(1 << 20)
    exact = Exact(Memory(1 << 20), store, Tags(store, keep_s=60, shared=False))
    return Semantic(Nobody(), exact, Feed(store), deadline_s=1)  # type: ignore[arg-type]


def scored(streams: Sequence[Played]) -> Score:
    """What several streams say together."""
    num = len(streams[0].served)
    hits = [sum(one.served) / num for one in streams]
    errors = [sum(one.wrong) / num for one in streams]
    per_hit = [error / hit if hit else 0.0 for hit, error in zip(hits, errors, strict=True)]
    audits = mean(one.num_audits / num for one in streams)
    return Score(mean(hits), mean(errors), stdev(errors), mean(per_hit), stdev(per_hit), audits)


def run(pool: ProcessPoolExecutor, name: str, terms: Terms, belief: Belief, num_orders: int) -> Score:
    """Play a set in several orders."""
    jobs = [pool.submit(play, name, seed, terms, belief) for seed in range(num_orders)]
    return scored([job.result() for job in jobs])


def believed(pool: ProcessPoolExecutor, name: str) -> Belief:
    """How log odds bend on a set, where nothing is believed beforehand: from every request's truth."""
    plain = Belief((0.0, 0.0, 0.0), BELIEF.firmness)
    jobs = [
        pool.submit(play, name, seed, Terms(error), plain)
        for seed in range(NUM_BELIEF_ORDERS)
        for error in ERRORS.values()
    ]
    odds = np.array([pair for job in jobs for pair in job.result().odds])
    return Belief(bend(odds), BELIEF.firmness)


def bend(odds: Vectors) -> Bend:
    """The curve of all log odds above even ones."""
    likely = odds[odds[:, 0] > 0].astype(np.float64)
    one, two, three = bending(likely[:, 0], likely[:, 1], np.ones(len(likely)), (0.0, 0.0, 0.0), 1e-3)
    return round(one, 2), round(two, 2), round(three, 2)


def measure(num_orders: int = NUM_ORDERS, names: Sequence[str] = ("banking", "clinc")) -> dict[str, float]:
    """`{set}_hits_d1|d2|d5`, `held` (how many of these were), and `banking_hits_perhit2`."""
    for name in names:
        loaded(name)  # the vectors are made once, before there are several processes
    figures: dict[str, float] = {}
    with ProcessPoolExecutor(NUM_PROCESSES) as pool:
        held = 0
        for name in names:
            belief = believed(pool, OTHER[name])
            told(f"{name}, with what is believed from {OTHER[name]}: {belief.bend}")
            for key, error in ERRORS.items():
                score = run(pool, name, Terms(error), belief, num_orders)
                figures[f"{name}_hits_{key}"] = score.hits
                held += score.bound() <= error
                told(f"  {error:.0%} of requests: {lined(score)}")
            figures.update(per_hit(pool, name, belief, num_orders))
            recovered(pool, name, belief)
            few = min(num_orders, NUM_SHIPPED_ORDERS)
            told(f"{name}, as shipped: {BELIEF.bend}, {few} orders")
            for error in ERRORS.values():
                told(f"  {error:.0%} of requests: {lined(run(pool, name, Terms(error), BELIEF, few))}")
            against(name)
    return figures | {"held": held}


def per_hit(pool: ProcessPoolExecutor, name: str, belief: Belief, num_orders: int) -> dict[str, float]:
    """Hits where a share of the hits is promised; it counts only where that was held, too."""
    score = run(pool, name, Terms(1.0, hit_error=PER_HIT), belief, num_orders)
    told(f"  {PER_HIT:.0%} of hits: {lined(score)}")
    if name != "banking":
        return {}
    return {"banking_hits_perhit2": score.hits, "banking_perhit2_held": score.hit_bound() <= PER_HIT}


def recovered(pool: ProcessPoolExecutor, name: str, belief: Belief) -> None:
    """Half of all intents arrive in the middle: the error among the requests 501 to 1,500 after that."""
    jobs = [pool.submit(novel, name, seed, Terms(PER_HIT), belief) for seed in range(NUM_REPLAYS)]
    errors = [job.result() for job in jobs]
    over = sum(error > PER_HIT for error in errors)
    told(f"  new intents, {NUM_REPLAYS} replays at {PER_HIT:.0%}: mean error {mean(errors):.2%}, above it in {over}")


def novel(name: str, seed: int, terms: Terms, belief: Belief) -> float:
    """The share of wrong answers after half of the intents were new."""
    data, chance = loaded(name), Random(seed)
    known = set(chance.sample(sorted(set(data.answers)), len(set(data.answers)) // 2))
    rows = order(name, seed)
    before = [row for row in rows if data.answers[row] in known][:NUM_BEFORE]
    seen = set(before)
    after = [row for row in rows if row not in seen][: LATE[1]]
    wrong = play(name, seed, terms, belief, before + after).wrong
    return mean(wrong[NUM_BEFORE + LATE[0] : NUM_BEFORE + LATE[1]])


def against(name: str) -> None:
    """Peers on the first requests of the first order."""
    data, rows = loaded(name), order(name, 0)[:NUM_PEERS]
    told(f"{name}, the first {NUM_PEERS:,} requests of the first order: hits at error")
    for error in ERRORS.values():
        ours = play(name, 0, Terms(error), BELIEF, rows)
        mine = (mean(ours.served), mean(ours.wrong))
        plain = peers.best_threshold(data.vectors, data.answers, rows, error)
        learned = peers.vcache(data.vectors, data.answers, rows, error)
        told(f"  {error:.0%}: ours {shares(mine)}, best threshold {shares(plain)}, vCache {shares(learned)}")
    found = peers.gptcache(data.texts, data.vectors, data.answers, rows)
    told(f"  GPTCache, first {peers.NUM_GPTCACHE:,}: {shares(found) if found else 'not installed'}")


def lined(score: Score) -> str:
    """A score on one line."""
    return (
        f"hits {score.hits:.3f}, error {score.error:.2%} (bound {score.bound():.2%}), "
        f"of hits {score.hit_error:.2%} (bound {score.hit_bound():.2%}), audits {score.audits:.2%}"
    )


def shares(found: tuple[float, float]) -> str:
    """Hits and errors."""
    return f"{found[0]:.3f} at {found[1]:.2%}"


def told(line: str) -> None:
    """Print at once: the whole takes a while."""
    print(line, flush=True)


if __name__ == "__main__":
    wanted = [each for each in sys.argv[1:] if each in OTHER] or list(OTHER)
    orders = next((int(each) for each in sys.argv[1:] if each.isdigit()), NUM_ORDERS)
    print(json.dumps(measure(orders, wanted)))
