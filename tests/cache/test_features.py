"""Votes and features: who is chosen, what a veto does, and that nothing unsound ever comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.clusters import meanings, unit, wordings
from stepwell.cache.features import NAMES, Near, weigh
from stepwell.cache.metric import Metric, learn

ANSWERS = np.arange(600) % 40
CENTRES = meanings(40, 1)
KEYS = wordings(CENTRES, ANSWERS, 2)
METRIC = learn(KEYS, ANSWERS)


def near(query: np.ndarray, k: int = 32, allowed: tuple[bool, ...] | None = None) -> Near:
    cosines = KEYS @ query
    rows = np.argsort(-cosines)[:k]
    return Near(cosines[rows], KEYS[rows], [b"%d" % ANSWERS[row] for row in rows], allowed or (True,) * len(rows))


@pytest.mark.parametrize("metric", [METRIC, None])
def test_the_answer_that_most_speaks_for_is_chosen_by_its_nearest_key(metric: Metric | None) -> None:
    asked = wordings(CENTRES, ANSWERS, 5)
    right = 0
    for query, answer in zip(asked[:200], ANSWERS[:200], strict=True):
        around = near(query)
        found = weigh(query, around, metric, 600)
        assert found is not None
        assert len(found.features) == len(NAMES)
        assert found.row == around.answers.index(around.answers[found.row])
        right += around.answers[found.row] == b"%d" % answer
    assert right > (170 if metric else 100)


def test_right_candidates_have_better_features_than_wrong_ones() -> None:
    asked = wordings(CENTRES, ANSWERS, 6, noise=1.3)
    told: dict[bool, list[float]] = {True: [], False: []}
    for query, answer in zip(asked, ANSWERS, strict=True):
        around = near(query)
        found = weigh(query, around, METRIC, 600)
        assert found is not None
        told[around.answers[found.row] == b"%d" % answer].append(found.features[NAMES.index("posterior")])
    assert np.median(told[True]) > np.median(told[False]) + 2


def test_a_vetoed_key_never_answers_but_still_counts_against_the_others() -> None:
    query = wordings(CENTRES, ANSWERS, 7)[0]
    free = weigh(query, near(query), METRIC, 600)
    assert free is not None
    best = near(query).answers[free.row]
    allowed = tuple(answer != best for answer in near(query).answers)
    found = weigh(query, near(query, allowed=allowed), METRIC, 600)
    assert found is not None
    assert allowed[found.row]
    assert found.features[NAMES.index("posterior")] < 0 < free.features[NAMES.index("posterior")]
    assert weigh(query, near(query, allowed=(False,) * 32), METRIC, 600) is None


def test_one_neighbour_is_enough() -> None:
    for metric in (METRIC, None):
        found = weigh(KEYS[0], near(KEYS[0], k=1), metric, 1)
        assert found is not None
        assert found.row == 0


@settings(max_examples=150, deadline=None)
@given(
    k=st.integers(1, 12),
    spoilt=st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e38, 1.0]),
    where=st.sampled_from(["query", "cosines", "vectors", "nowhere"]),
    seed=st.integers(0, 1000),
    learned=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_unsound_numbers_give_nothing_or_sound_features(
    k: int, spoilt: float, where: str, seed: int, *, learned: bool
) -> None:
    chance = np.random.default_rng(seed)
    query, vectors = unit(chance.normal(size=48)), unit(chance.normal(size=(k, 48)))
    cosines = -np.sort(-(vectors @ query))
    for name, values in (("query", query), ("cosines", cosines), ("vectors", vectors[0])):
        if name == where:
            values[0] = spoilt
    answers = [b"%d" % chance.integers(3) for _ in range(k)]
    found = weigh(query, Near(cosines, vectors, answers, (True,) * k), METRIC if learned else None, k)
    assert found is None or all(map(math.isfinite, found.features))
