"""The learned metric: what it makes near, when it is learned, and that its likelihoods are the textbook's."""

from __future__ import annotations

import numpy as np
import pytest

from cache.clusters import DIMENSIONS, meanings, wordings
from stepwell.cache.metric import LEAST_PAIRS, MOST_KEYS, NUM_AXES, due, learn, likelihoods

ANSWERS = np.arange(600) % 40
KEYS = wordings(meanings(40, 1), ANSWERS, 2)


def test_wordings_of_one_answer_scatter_by_one_on_every_axis_and_answers_as_it_says() -> None:
    metric = learn(KEYS, ANSWERS)
    assert metric is not None
    points = (KEYS - metric.mean) @ metric.axes
    centres = np.stack([points[answer == ANSWERS].mean(0) for answer in range(40)])
    within = (points - centres[ANSWERS]).var(0) * 600 / 560
    assert within.min() > 0.3
    assert within.max() < 1.01
    assert metric.between[0] == pytest.approx(centres.var(0)[0], rel=0.25)
    assert (np.diff(metric.between) <= 1e-6).all()


def test_it_ranks_better_than_the_cosine() -> None:
    metric = learn(KEYS, ANSWERS)
    assert metric is not None
    asked = wordings(meanings(40, 1), ANSWERS, 3)
    raw = ANSWERS[(asked @ KEYS.T).argmax(1)] == ANSWERS
    points, keys = (asked - metric.mean) @ metric.axes, (KEYS - metric.mean) @ metric.axes
    sums = np.stack([keys[answer == ANSWERS].sum(0) for answer in range(40)])
    counts = np.bincount(ANSWERS).astype(np.float32)
    found = np.array([likelihoods(metric, point, sums, counts)[0].argmax() for point in points]) == ANSWERS
    assert found.mean() > raw.mean() + 0.05


def test_likelihoods_are_those_of_the_two_gaussians() -> None:
    metric = learn(KEYS, ANSWERS)
    assert metric is not None
    point, keys = ((KEYS[:4] - metric.mean) @ metric.axes)[0], ((KEYS[:4] - metric.mean) @ metric.axes)[1:]
    known, _, unknown = likelihoods(metric, point, keys.sum(0)[None], np.array([3.0], np.float32))
    between = metric.between.astype(np.float64)
    spread = between / (1 + 3 * between)
    centre = spread * keys.sum(0)
    wide = 1 + spread
    assert known[0] == pytest.approx(-0.5 * (((point - centre) ** 2 / wide) + np.log(wide)).sum(), rel=1e-4)
    assert unknown == pytest.approx(-0.5 * ((point**2 / (1 + between)) + np.log(1 + between)).sum(), rel=1e-4)


def test_few_pairs_teach_nothing() -> None:
    assert learn(KEYS[:40], ANSWERS[:40]) is None
    assert learn(KEYS[: 39 + LEAST_PAIRS], ANSWERS[: 39 + LEAST_PAIRS]) is None
    assert learn(KEYS[: 40 + LEAST_PAIRS], ANSWERS[: 40 + LEAST_PAIRS]) is not None


def test_axes_are_no_more_than_dimensions_and_the_newest_keys_count() -> None:
    metric = learn(KEYS, ANSWERS)
    assert metric is not None
    assert metric.axes.shape == (DIMENSIONS, min(DIMENSIONS, NUM_AXES))
    many = learn(np.tile(KEYS, (40, 1)), np.tile(ANSWERS, 40))
    assert many is not None
    assert many.num_keys == MOST_KEYS


def test_it_is_due_at_first_and_then_ever_more_rarely() -> None:
    metric = learn(KEYS, ANSWERS)
    assert [due(59, None), due(60, None), due(700, metric), due(760, metric)] == [False, True, False, True]
