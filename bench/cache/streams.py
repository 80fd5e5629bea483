"""Hits under a promise that is held: every text of a set once, in random order, from an empty cache, oracle labels.

The gateway's own code decides (`Semantic.chosen`: index, metric, votes, guard; then the promise), on vectors of the
embedder that ships; an intent stands for an answer, so a judge never errs. A hit is a request answered without the
large model, right or wrong; audited requests count as misses. A promise is held where the mean error share over the
orders, and 1.645 standard deviations, is no more than what was promised. What is believed beforehand (the promise's
curve, its caution) is chosen on one set and used on the other; a last run uses what ships. Peers have the same vectors.

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
from operator import mul
from random import Random
from statistics import mean, stdev

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bench.cache import peers, texts
from bench.cache.texts import Vectors
from stepwell.cache.exact import Exact
from stepwell.cache.features import NUM_NEIGHBOURS, VERSION, Near, weigh
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
NUM_RECORDED = 4
CAUTIONS = (0.5, 0.8, 1.2)
ROOM = 0.95
"""The bound that is wanted where settings are chosen, as a share of what is promised: a few orders say little."""
STEP, PARTITION = "cache", b"p" * 32
FOREVER_S = 4e9
QUANTILE = 1.645
"""Of the normal distribution: 95 of 100 orders stay below."""


class Set(Struct, frozen=True):
    """Texts, their vectors, and the number of each one's right answer."""

    texts: tuple[str, ...]
    vectors: Vectors
    answers: tuple[bytes, ...]


Proposed = tuple[tuple[float, ...], bool] | None
"""Features of a proposal and whether it is right; None where there is none."""


class Played:
    """One stream, request by request; and the log odds of proposals, with their truth."""

    def __init__(self) -> None:
        self.served: list[bool] = []
        self.wrong: list[bool] = []
        self.audited: list[bool] = []
        self.proposed: list[Proposed] = []
        self.odds: list[tuple[float, bool]] = []


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


def play(
    name: str, seed: int, terms: Terms, belief: Belief = BELIEF, rows: Sequence[int] = (), *, guarded: bool = True
) -> Played:
    """One stream through the gateway's decision: these rows, or every text once."""
    data, semantic, promise, played = loaded(name), empty(), Promise(terms, Random(seed), belief), Played()
    index, spaces = semantic.feed.index, semantic.spaces
    for number, row in enumerate(rows or order(name, seed), 1):
        promise.request()
        proposed = asked(data, row, semantic) if guarded else unguarded(data, row, semantic)
        hit = proposed is not None and ruled(promise, *proposed, played)
        played.proposed.append(proposed)
        played.served.append(hit)
        played.wrong.append(hit and proposed is not None and not proposed[1])
        if not hit:
            index.add([(number, key(data, row))])
            if due(len(index), spaces.get(PARTITION)):
                asyncio.run(spaces.refresh(index))
        if promise.due():
            promise.refit()
    return played


def asked(data: Set, row: int, semantic: Semantic) -> Proposed:
    """Ask one text: the features of what is proposed, and whether that is right."""
    found = semantic.chosen(data.vectors[row], Identity(b"", PARTITION, data.texts[row], b""))
    if found is None or found[0].vetoes:
        return None
    return found[0].features, found[1].answer == data.answers[row]


def unguarded(data: Set, row: int, semantic: Semantic) -> Proposed:
    """The same without the guard: what an intent's label calls right although a number or a name differs."""
    index, vector = semantic.feed.index, data.vectors[row]
    numbers, cosines = index.nearest(PARTITION, vector, NUM_NEIGHBOURS)
    if not len(numbers):
        return None
    answers = [found.answer for found in map(index.get, numbers.tolist()) if found is not None]
    near = Near(cosines, index.vectors(PARTITION, numbers), answers, [True] * len(answers))
    weighed = weigh(vector, near, semantic.spaces.get(PARTITION), len(index))
    return None if weighed is None else (weighed.features, answers[weighed.row] == data.answers[row])


def ruled(promise: Promise, features: tuple[float, ...], right: bool, played: Played) -> bool:  # noqa: FBT001
    """Whether a proposal is served; what is not teaches the promise."""
    ruling = promise.rule(STEP, Proposal(Answer(form="json"), Evidence("semantic", "", features)))
    learned = promise.fit.steps.get(STEP)
    if learned is not None:
        played.odds.append((sum(map(mul, learned.coefficients, features)), right))
    played.audited.append(ruling.verdict == "audit")
    if ruling.verdict == "serve":
        return True
    audited = ruling.verdict == "audit"
    promise.learn(
        Label(STEP, PARTITION, features, right, ruling.right, ruling.share if audited else 1.0, audited, 0.0, VERSION)
    )
    return False


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
    audits = mean(sum(one.audited) / num for one in streams)
    return Score(mean(hits), mean(errors), stdev(errors), mean(per_hit), stdev(per_hit), audits)


def run(
    pool: ProcessPoolExecutor, name: str, terms: Terms, belief: Belief, num_orders: int, *, guarded: bool = True
) -> Score:
    """Play a set in several orders."""
    jobs = [pool.submit(play, name, seed, terms, belief, guarded=guarded) for seed in range(num_orders)]
    return scored([job.result() for job in jobs])


def chosen(pool: ProcessPoolExecutor, name: str) -> Belief:
    """Settings chosen on one set: how log odds bend, and the least caution that holds every promise with room to spare.

    A few streams are recorded; then the promise alone is played over what was proposed in them.
    """
    jobs = [pool.submit(play, name, seed, Terms(ERRORS["d2"])) for seed in range(NUM_RECORDED)]
    recorded = [job.result().proposed for job in jobs]
    plain = Belief((0.0, 0.0, 0.0), BELIEF.firmness, max(CAUTIONS))
    told = [pool.submit(replay, each, Terms(error), plain) for each in recorded for error in ERRORS.values()]
    curve = bend(np.array([pair for job in told for pair in job.result().odds]))
    for caution in CAUTIONS:
        belief = Belief(curve, BELIEF.firmness, caution)
        if all(holds(pool, recorded, error, belief) for error in ERRORS.values()):
            return belief
    return Belief(curve, BELIEF.firmness, max(CAUTIONS))


def holds(pool: ProcessPoolExecutor, recorded: list[list[Proposed]], error: float, belief: Belief) -> bool:
    """Whether a promise is held over recorded streams."""
    jobs = [pool.submit(replay, each, Terms(error), belief, seed) for seed, each in enumerate(recorded)]
    return scored([job.result() for job in jobs]).bound() <= ROOM * error


def replay(proposed: list[Proposed], terms: Terms, belief: Belief, seed: int = 0) -> Played:
    """The promise alone over what was proposed in another stream."""
    promise, played = Promise(terms, Random(seed), belief), Played()
    for each in proposed:
        promise.request()
        hit = each is not None and ruled(promise, *each, played)
        played.served.append(hit)
        played.wrong.append(hit and each is not None and not each[1])
        if promise.due():
            promise.refit()
    return played


def bend(odds: NDArray[np.float64]) -> Bend:
    """The curve of all log odds above even ones."""
    likely = odds[odds[:, 0] > 0]
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
            belief = chosen(pool, OTHER[name])
            told(f"{name}, with settings chosen on {OTHER[name]}: bend {belief.bend}, caution {belief.caution}")
            for key, error in ERRORS.items():
                score = run(pool, name, Terms(error), belief, num_orders)
                figures[f"{name}_hits_{key}"] = score.hits
                held += score.bound() <= error
                told(f"  {error:.0%} of requests: {lined(score)}")
            figures.update(per_hit(pool, name, belief, num_orders))
            if name == "banking":
                recovered(pool, name, belief)
            few = min(num_orders, NUM_SHIPPED_ORDERS)
            told(f"{name}, as shipped (bend {BELIEF.bend}, caution {BELIEF.caution}), {few} orders")
            for error in ERRORS.values():
                told(f"  {error:.0%} of requests: {lined(run(pool, name, Terms(error), BELIEF, few))}")
            told(f"{name}, as shipped but without the guard, {few} orders")
            for error in ERRORS.values():
                told(f"  {error:.0%} of requests: {lined(run(pool, name, Terms(error), BELIEF, few, guarded=False))}")
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
