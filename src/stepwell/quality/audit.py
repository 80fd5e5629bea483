"""Audits: how many of the would-be shallow answers the large model gives, too, and what those say of all of them.

An audit drawn with probability `share` stands for 1/share answers (Horvitz and Thompson, 1952). The interval is the
gamma interval for weighted sums of rare events (Fay and Feuer, Statistics in Medicine 16, 1997), which reduces to the
exact Poisson interval where all weights are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from stepwell.quality.promise import Terms

LEAST, MOST = 0.4, 0.5
"""The smallest share of audits, in terms of the promised one; and the largest, whatever is promised."""
TAIL = 0.025
HALVINGS = 50
"""Of an interval of a few hundred at most: to 1e-12."""


class Sample(Struct, frozen=True, gc=False):
    """One audit: whether the proposed answer was wrong, and the probability with which it was audited."""

    wrong: bool
    share: float


class Interval(Struct, frozen=True):
    """An estimate with the bounds between which the truth lies in 95 of 100 cases."""

    low: float = 0.0
    estimate: float = 0.0
    high: float = 1.0


def audit_share(right: float, terms: Terms) -> float:
    """Probability of an audit: in proportion to the spread of what it would tell (Neyman, 1934)."""
    return min(MOST, terms.audit * max(LEAST, math.sqrt((1 - right) / (terms.strictest() or 1.0))))


def interval(samples: Iterable[Sample]) -> Interval:
    """Share of wrong ones among all that the samples stand for."""
    weights = [(1 / sample.share, sample.wrong) for sample in samples]
    total = sum(weight for weight, _ in weights)
    if not total:
        return Interval()
    wrong = sum(weight for weight, bad in weights if bad)
    squares = sum(weight * weight for weight, bad in weights if bad)
    largest = max(weight for weight, _ in weights)
    low = squares / (2 * wrong) * chi2_quantile(TAIL, 2 * wrong * wrong / squares) if wrong else 0.0
    above, spread = wrong + largest, squares + largest * largest
    high = spread / (2 * above) * chi2_quantile(1 - TAIL, 2 * above * above / spread)
    return Interval(low / total, wrong / total, min(1.0, high / total))


def chi2_quantile(share: float, freedom: float) -> float:
    """Quantile of the chi-squared distribution, by bisection."""
    low, high = 0.0, freedom + 10 * math.sqrt(2 * freedom) + 20
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if gamma_share(freedom / 2, middle / 2) < share else (low, middle)
    return (low + high) / 2


def gamma_share(shape: float, x: float) -> float:
    """The regularized lower incomplete gamma function P(shape, x), by its series (DLMF 8.7.1)."""
    if x <= 0:
        return 0.0
    term = total = 1 / shape
    step = shape
    while term > total * 1e-14:
        step += 1
        term *= x / step
        total += term
    return min(1.0, total * math.exp(shape * math.log(x) - x - math.lgamma(shape)))
