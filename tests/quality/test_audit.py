"""Audits: their density, and that the interval covers the truth as often as it says."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stepwell.quality.audit import LEAST, MOST, Interval, Sample, audit_share, chi2_quantile, interval
from stepwell.quality.promise import Terms

TERMS = Terms(0.02, audit=0.05)


def test_the_doubtful_are_audited_more_within_bounds() -> None:
    shares = [audit_share(right, TERMS) for right in (0.5, 0.9, 0.98, 0.999, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] == pytest.approx(0.05)
    assert shares[-1] == pytest.approx(LEAST * 0.05)
    assert audit_share(0.5, Terms(0.001, audit=1.0)) == MOST


def test_equal_weights_give_the_exact_poisson_interval() -> None:
    found = interval([Sample(wrong=number < 7, share=1.0) for number in range(500)])
    assert found.low == pytest.approx(stats.chi2.ppf(0.025, 14) / 2 / 500, rel=1e-6)
    assert found.high == pytest.approx(stats.chi2.ppf(0.975, 16) / 2 / 500, rel=1e-6)
    assert found.estimate == pytest.approx(7 / 500)


def test_nothing_known_is_everything_possible() -> None:
    assert interval([]) == Interval(0.0, 0.0, 1.0)
    none_wrong = interval([Sample(wrong=False, share=0.1)] * 40)
    assert none_wrong.low == none_wrong.estimate == 0
    assert 0.05 < none_wrong.high < 0.15


@given(st.floats(0.001, 0.999), st.floats(0.01, 400))
def test_quantiles_are_the_textbooks(share: float, freedom: float) -> None:
    assert chi2_quantile(share, freedom) == pytest.approx(stats.chi2.ppf(share, freedom), rel=1e-4, abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 1.0)), max_size=60))
def test_bounds_enclose_the_estimate(rows: list[tuple[bool, float]]) -> None:
    found = interval([Sample(wrong, share) for wrong, share in rows])
    assert 0 <= found.low <= found.estimate + 1e-12
    assert found.estimate <= found.high + 1e-12 or math.isclose(found.estimate, 1)
    assert found.high <= 1


@pytest.mark.parametrize("worse", [0.5, 1.0, 3.0])
def test_the_interval_covers_the_truth_in_95_of_100_streams(worse: float) -> None:
    """Audited by the promise's own rule; the truth is as the promise believes, better, or three times worse."""
    covered, num_streams = 0, 300
    for seed in range(num_streams):
        chance = Random(seed)
        samples, num_wrong, num_answers = [], 0, 3000
        for _ in range(num_answers):
            right = 1 - 0.1 * chance.random() ** 3
            wrong = chance.random() < worse * (1 - right)
            share = audit_share(right, TERMS)
            num_wrong += wrong
            if chance.random() < share:
                samples.append(Sample(wrong, share))
        found = interval(samples)
        covered += found.low <= num_wrong / num_answers <= found.high
    assert covered / num_streams >= 0.95
