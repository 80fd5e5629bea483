"""One may look after every pair: the test is wrong no more often for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from stepwell.quality.sequential import STAKES, Counts, bounds, is_no_worse, is_worse, log_capital, turned

told = some.builds(Counts, some.integers(0, 3000), some.integers(0, 3000), some.integers(0, 30_000))


@given(told, some.floats(0.001, 0.5))
def test_bounds_hold_the_mean_and_turn_with_the_question(counts: Counts, alpha: float) -> None:
    low, high = bounds(counts, alpha)
    assert -1 <= low <= counts.mean <= high <= 1
    assert bounds(turned(counts), alpha) == pytest.approx((-high, -low))
    wider = bounds(counts, alpha / 2)
    assert wider[0] <= low
    assert wider[1] >= high


@given(told, some.floats(0.005, 0.3), some.floats(0.005, 0.5))
def test_decisions_follow_from_the_bounds(counts: Counts, margin: float, alpha: float) -> None:
    low, high = bounds(counts, alpha)
    if abs(high + margin) > 1e-9:
        assert is_worse(counts, margin, alpha) == (high < -margin)
    if abs(low + margin) > 1e-9:
        assert is_no_worse(counts, margin, alpha) == (low > -margin)
    assert not (is_worse(counts, margin, alpha) and is_no_worse(counts, margin, alpha))


@given(told, some.floats(-0.99, 0.99))
def test_the_capital_is_the_mean_over_stakes_in_whatever_order(counts: Counts, mean: float) -> None:
    small = Counts(counts.gains % 50, counts.losses % 50, counts.ties % 50)
    pairs = np.array([1.0] * small.gains + [-1.0] * small.losses + [0.0] * small.ties)
    np.random.default_rng(small.gains).shuffle(pairs)
    capital = np.mean([np.prod(1 - stake * (pairs - mean)) for stake in STAKES])
    assert log_capital(small, mean) == pytest.approx(math.log(capital), abs=1e-6)


def test_looking_after_every_pair_stops_a_fair_student_no_more_often_than_promised() -> None:
    """The capital of 2,000 students at the margin, looked at after each of 2,000 pairs."""
    chance, margin, alpha = np.random.default_rng(4), 0.02, 0.05
    stakes = np.array(STAKES)
    factors = np.stack([1 - stakes * (pair + margin) for pair in (1.0, -1.0, 0.0)])
    for gains, losses in ((0.0, 0.02), (0.09, 0.11)):
        capital, most = np.full((2000, len(stakes)), 1 / len(stakes)), np.zeros(2000)
        for _ in range(2000):
            drawn = chance.choice(3, size=2000, p=[gains, losses, 1 - gains - losses])
            capital *= factors[drawn]
            most = np.maximum(most, capital.sum(axis=1))
        assert (most >= 1 / alpha).mean() <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 2000)


def test_a_bad_student_is_found_soon_and_a_good_one_shown() -> None:
    assert is_worse(Counts(0, 20, 0), 0.02, 0.05)
    assert is_worse(Counts(5, 45, 250), 0.02, 0.05)
    assert not is_worse(Counts(5, 9, 250), 0.02, 0.05)
    assert is_no_worse(Counts(150, 150, 4700), 0.02, 0.05)
    assert not is_no_worse(Counts(), 0.02, 0.05)
    assert bounds(Counts(), 0.05) == (-1, 1)
