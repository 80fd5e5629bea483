"""Logistic regression with a Gaussian prior, by Newton's method: a few solves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST_STEPS, CLOSE = 25, 1e-5
SAFE = 30.0
"""Log odds beyond which nothing is more certain."""


def chances(features: Array, coefficients: Array) -> Array:
    """Probabilities of being right, shape (rows,)."""
    odds: Array = 1 / (1 + np.exp(-np.clip(features @ coefficients, -SAFE, SAFE)))
    return odds


def fit(features: Array, right: Array, weights: Array, mean: Array, precision: Array) -> Array:
    """Most probable coefficients; `precision` (columns,) says how firmly each is believed to be near its `mean`."""
    coefficients = np.array(mean)
    best = -np.inf
    step: Array = np.zeros_like(mean)
    for _ in range(MOST_STEPS):
        tried = coefficients + step
        height = likelihood(features, right, weights, tried) - 0.5 * float(precision @ (tried - mean) ** 2)
        if height < best:
            step = step / 2
            continue
        coefficients, best = tried, height
        odds = chances(features, coefficients)
        slope = features.T @ (weights * (right - odds)) - precision * (coefficients - mean)
        curve = (features * (weights * odds * (1 - odds))[:, None]).T @ features + np.diag(precision)
        step = np.array(np.linalg.solve(curve, slope), np.float64)
        if np.abs(step).max() < CLOSE:
            break
    return coefficients


def likelihood(features: Array, right: Array, weights: Array, coefficients: Array) -> float:
    """The weighted log likelihood."""
    odds = np.clip(features @ coefficients, -SAFE, SAFE)
    return float(weights @ (right * odds - np.logaddexp(0, odds)))
