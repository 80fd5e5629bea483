"""What is chosen is worth most; what is estimated from it is right on average, exactly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.distill.value import Choice, choose, covering, estimate, inclusion, systematic, values

SIZES = st.lists(st.integers(1, 50), min_size=2, max_size=12)


@settings(deadline=None)
@given(SIZES, st.integers(1, 12))
def test_chances_add_up_and_follow_sizes(sizes: list[int], num: int) -> None:
    size = np.array(sizes, float)
    chance = inclusion(size, num)
    assert chance.sum() == pytest.approx(min(num, len(sizes)))
    assert np.all((chance > 0) & (chance <= 1))
    below = chance < 1 - 1e-9
    assert np.allclose(chance[below] / size[below], (chance[below] / size[below])[:1] if below.any() else 0)


@settings(deadline=None)
@given(SIZES, st.integers(1, 10), st.data())
def test_the_estimate_is_unbiased_with_and_without_a_guess(sizes: list[int], num: int, data: st.DataObject) -> None:
    """The mean over every sample that chance can draw, each by how often it does, is the truth."""
    frequency = np.array(sizes, float)
    count = len(sizes)
    right = np.array(data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)), float)
    guess = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    num_sure = data.draw(st.integers(0, count - 1))
    sure, rest = np.arange(num_sure), np.arange(num_sure, count)
    chance = inclusion(frequency[rest], num)
    edges = np.unique(np.concatenate([[0, 1], np.cumsum(chance) % 1]).round(9))
    total, plain, guided = frequency.sum(), 0.0, 0.0
    for low, high in pairwise(edges):
        drawn = systematic(chance, (low + high) / 2)
        places = np.concatenate([sure, rest[drawn]])
        choice = Choice(places, np.concatenate([np.ones(num_sure), chance[drawn]]), num_sure)
        told = {"frequency": frequency[places], "choice": choice, "total": total}
        plain += (high - low) * estimate(right[places], **told).mean
        mean = float(frequency @ guess / total)
        guided += (high - low) * estimate(right[places], **told, guess=guess[places], guess_mean=mean).mean
    truth = frequency @ right / total
    assert plain == pytest.approx(truth, abs=1e-6)
    assert guided == pytest.approx(truth, abs=1e-6)


def test_a_right_guess_makes_the_estimate_exact() -> None:
    right, frequency = np.array([1.0, 0, 1, 1]), np.array([3.0, 2, 2, 1])
    choice = Choice(np.array([1, 3]), np.array([0.5, 0.25]), 0)
    mean = float(frequency @ right / 8)
    found = estimate(right[[1, 3]], frequency[[1, 3]], choice, total=8, guess=right[[1, 3]], guess_mean=mean)
    assert (found.mean, found.error) == (mean, 0)
    assert estimate(right[[1, 3]], frequency[[1, 3]], choice, total=8).error > 0


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(1, 60), st.floats(0.1, 1))
def test_a_choice_has_its_size_and_no_prompt_twice(seed: int, num: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    frequency = rng.integers(1, 9, 40).astype(float)
    choice = choose(rng.random(40), frequency, num, random_share=share, seed=seed)
    assert len(choice.places) == len(set(choice.places.tolist())) == min(num, 40)
    assert np.all(choice.probability[: choice.num_by_value] == 1)


def test_value_is_frequency_times_failure_times_saving_for_each_usd() -> None:
    worth = values(np.array([10.0, 10, 1]), np.array([0.5, 0.5, 1.0]), 0.01, np.array([0.001, 0.002, 0.001]))
    assert worth.tolist() == pytest.approx([50, 25, 10])


def test_covering_takes_one_of_each_heap_before_two_of_any() -> None:
    rng = np.random.default_rng(1)
    centres = np.eye(8, 16)
    points = np.repeat(centres, 20, axis=0) + 0.05 * rng.standard_normal((160, 16))
    vectors = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    worth = np.repeat(1.2 ** -np.arange(8), 20)
    chosen = covering(vectors, worth, 8)
    assert sorted(chosen // 20) == list(range(8))
    assert chosen[0] // 20 == 0
    taught = np.arange(40)
    assert sorted(covering(vectors, worth, 6, taught) // 20) == list(range(2, 8))


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 12))
def test_covering_is_the_greedy_choice(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((25, 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    worth = rng.random(25)
    near = np.exp(2.0 * (vectors @ vectors.T - 1))
    covered = np.zeros(25)
    for place in covering(vectors, worth, num):
        gains = np.maximum(near - covered, 0) @ worth
        assert gains[place] == pytest.approx(gains.max(), rel=1e-4)
        covered = np.maximum(covered, near[place])
