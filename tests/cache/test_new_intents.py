"""The whole decision, from vectors to ruling, while new intents arrive in the middle of a stream."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.clusters import meanings, wordings
from stepwell.cache.features import VERSION, Near, weigh
from stepwell.cache.metric import Metric, due, learn
from stepwell.quality.promise import Promise, Terms
from stepwell.types import Answer, Evidence, Label, Proposal

NUM_BEFORE, NUM_AFTER, OLD, ALL = 1500, 1500, 30, 60
ERROR = 0.03
NUM_REPLAYS = 50


def stream(seed: int) -> NDArray[np.int64]:
    chance = np.random.default_rng(seed)
    return np.concatenate([chance.integers(0, OLD, NUM_BEFORE), chance.integers(0, ALL, NUM_AFTER)])


class Cache:
    """Keys, the metric learned from them, and the promise."""

    def __init__(self, seed: int) -> None:
        self.answers = stream(seed)
        self.vectors = wordings(meanings(ALL, seed), self.answers, seed, noise=0.8)
        self.promise = Promise(Terms(ERROR, audit=0.05), Random(seed))
        self.metric: Metric | None = None
        self.keys: list[int] = []

    def ask(self, number: int) -> tuple[bool, bool]:
        """Whether it was served, and whether what was proposed was right."""
        self.promise.request()
        query, known = self.vectors[number], self.vectors[self.keys]
        cosines = known @ query
        rows = np.argsort(-cosines)[:32]
        names = [b"%d" % self.answers[self.keys[row]] for row in rows]
        near = Near(cosines[rows], known[rows], names, (True,) * len(rows))
        found = weigh(query, near, self.metric, len(self.keys))
        if found is None:
            return False, False
        right, features = names[found.row] == b"%d" % self.answers[number], found.features
        ruling = self.promise.rule("cache", Proposal(Answer(form="json"), Evidence("semantic", "", features)))
        if ruling.verdict != "serve":
            audited = ruling.verdict == "audit"
            self.promise.learn(Label("cache", b"", features, right, ruling.right, ruling.share, audited, 0.0, VERSION))
        return ruling.verdict == "serve", right

    def keep(self, number: int) -> None:
        self.keys.append(number)
        if due(len(self.keys), self.metric):
            self.metric = learn(self.vectors[self.keys], self.answers[self.keys]) or self.metric


def replay(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each request whether it was served, and whether wrongly."""
    cache = Cache(seed)
    served, wrong = np.zeros(len(cache.answers), bool), np.zeros(len(cache.answers), bool)
    for number in range(len(cache.answers)):
        hit, right = cache.ask(number)
        served[number], wrong[number] = hit, hit and not right
        if not hit:
            cache.keep(number)
        if cache.promise.due():
            cache.promise.refit()
    return served, wrong


@pytest.mark.timeout(400)
def test_the_promise_is_kept_when_half_of_all_intents_are_new() -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as processes:
        replays = list(processes.map(replay, range(NUM_REPLAYS), chunksize=5))
    late = slice(NUM_BEFORE + 500, NUM_BEFORE + 1500)
    assert np.mean([wrong[late].mean() for _, wrong in replays]) <= ERROR
    assert np.mean([served[late].mean() for served, _ in replays]) > 0.3
    assert np.mean([served[500:NUM_BEFORE].mean() for served, _ in replays]) > 0.3
