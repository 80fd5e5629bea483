"""BLEU against BLEU on the same prompts: paired bootstrap (Koehn 2004), plain and studentized, from sentences' counts.

A sentence counts by ten numbers (matches and totals of 1- to 4-grams, its length and its reference's): they are summed
over a resample, so that no text is counted twice. Studentized: each resample's difference is divided by its own
standard error, by the delta method (Hall, The Bootstrap and Edgeworth Expansion, 1992). Both must agree: where the
brevity penalty sets in BLEU has a kink, and the studentized one alone was wrong 4.4 % of the time at a nominal 2.5 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ORDERS = 4
MATCHES, TOTALS, LENGTH, REFERENCE = slice(0, 4), slice(4, 8), 8, 9
SIZE = 10
"""Numbers of one sentence."""
AT_A_TIME = 250
"""Resamples drawn together: what stays in memory is this times the number of sentences."""
BEST = 100.0


class Compared(Struct, frozen=True):
    """First minus second, with bounds that are each passed with probability alpha, and a one-sided p-value."""

    first: float
    second: float
    low: float
    high: float
    p: float

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.first - self.second


def bleu(sums: Array) -> Array:
    """Corpus BLEU of summed counts, shape (..., 10), smoothed as sacrebleu does where an order has no match."""
    matches, totals = sums[..., MATCHES], sums[..., TOTALS]
    missing = (matches == 0) & (totals > 0)
    smoothed = np.where(missing, 0.5 ** np.cumsum(missing, axis=-1), matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smoothed) - np.log(totals)
        brief = np.minimum(0.0, 1.0 - sums[..., REFERENCE] / sums[..., LENGTH])
        score = BEST * np.exp(logs.mean(axis=-1) + brief)
    said = (totals > 0).all(axis=-1) & (matches > 0).any(axis=-1)
    return np.where(said, score, 0.0)


def slopes(sums: Array) -> Array:
    """How BLEU changes with each summed count, shape (..., 10)."""
    score = bleu(sums)[..., None]
    found = np.zeros_like(sums)
    found[..., MATCHES] = score / ORDERS / np.maximum(sums[..., MATCHES], 1.0)
    found[..., TOTALS] = -score / ORDERS / np.maximum(sums[..., TOTALS], 1.0)
    length = np.maximum(sums[..., LENGTH], 1.0)
    brief = sums[..., LENGTH] < sums[..., REFERENCE]
    found[..., LENGTH] = np.where(brief, score[..., 0] * sums[..., REFERENCE] / length**2, 0.0)
    found[..., REFERENCE] = np.where(brief, -score[..., 0] / length, 0.0)
    return found


def compare(first: Array, second: Array, *, margin: float, alpha: float, resamples: int, seed: int) -> Compared:
    """Is the first worse by less than `margin` BLEU? Each shape (sentences, 10); the sentences belong together."""
    both = np.concatenate([first, second], axis=1)
    (difference,), (error,) = told(np.ones((1, len(both))), both)
    blocks = resampled(len(both), resamples, seed)
    draws = [told(weights, both) for weights in blocks]
    found, errors = (np.concatenate(each) for each in zip(*draws, strict=True))
    t = np.divide(found - difference, errors, out=np.zeros_like(found), where=errors > 0)
    low, high = difference - np.quantile(t, [1.0 - alpha, alpha]) * error
    plain_low, plain_high = np.quantile(found, [alpha, 1.0 - alpha])
    passes = np.maximum((t * error >= difference + margin).sum(), (found <= -margin).sum())
    p = (1 + passes) / (1 + len(t))
    scores = bleu(both.sum(axis=0).reshape(2, SIZE))
    bounds = float(min(low, plain_low)), float(max(high, plain_high))
    return Compared(float(scores[0]), float(scores[1]), *bounds, float(p))


def resampled(num: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each sentence is drawn, in blocks of shape (resamples, sentences)."""
    chance = np.random.default_rng(seed)
    for start in range(0, resamples, AT_A_TIME):
        size = min(AT_A_TIME, resamples - start)
        drawn = chance.integers(0, num, (size, num)) + np.arange(size)[:, None] * num
        yield np.bincount(drawn.ravel(), minlength=size * num).reshape(size, num).astype(np.float64)


def told(weights: Array, both: Array) -> tuple[Array, Array]:
    """Difference of BLEU and its standard error: how often each sentence is drawn, and both systems' counts of it."""
    sums, num = weights @ both, len(both)
    one, other = sums[:, :SIZE], sums[:, SIZE:]
    slope = np.concatenate([slopes(one), -slopes(other)], axis=1)
    parts = slope @ both.T  # what each sentence adds to the difference, near enough
    mean = np.einsum("ij,ij->i", slope, sums) / num
    square = np.einsum("ij,ij,ij->i", weights, parts, parts)
    return bleu(one) - bleu(other), np.sqrt(np.maximum(square - num * mean**2, 0.0) * num / max(1, num - 1))
