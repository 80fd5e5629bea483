"""Logistic regression with a Gaussian prior, by Newton's method: a few solves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST_STEPS, CLOSE = 25, 1e-5
SAFE = 30.0
"""Log odds beyond which nothing is more certain."""


def chances(odds: Array) -> Array:
    """Probabilities from log odds."""
    likely: Array = 1 / (1 + np.exp(-np.clip(odds, -SAFE, SAFE)))
    return likely


def fit(
    features: Array, right: Array, weights: Array, mean: Array, precision: Array, *, start: Array | float = 0.0
) -> Array:
    """Most probable coefficients; `precision` (columns,) says how firmly each is believed to be near its `mean`.

    `start` are log odds that every row has already.
    """
    coefficients = np.array(mean)
    best = -np.inf
    step: Array = np.zeros_like(mean)
    for _ in range(MOST_STEPS):
        tried = coefficients + step
        odds = features @ tried + start
        height = likelihood(odds, right, weights) - 0.5 * float(precision @ (tried - mean) ** 2)
        if height < best:
            step = step / 2
            continue
        coefficients, best = tried, height
        likely = chances(odds)
        slope = features.T @ (weights * (right - likely)) - precision * (coefficients - mean)
        curve = (features * (weights * likely * (1 - likely))[:, None]).T @ features + np.diag(precision)
        step = np.array(np.linalg.solve(curve, slope), np.float64)
        if np.abs(step).max() < CLOSE:
            break
    return coefficients


def likelihood(odds: Array, right: Array, weights: Array) -> float:
    """The weighted log likelihood."""
    bounded = np.clip(odds, -SAFE, SAFE)
    return float(weights @ (right * bounded - np.logaddexp(0, bounded)))
