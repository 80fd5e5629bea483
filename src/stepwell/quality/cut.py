"""Where to cut: fit probabilities to the labels, then let pass as many answers as the budget of errors pays for.

Served is what has the most value for its risk, until the errors expected of all that is served reach what is promised
(the fractional knapsack, which is the Neyman-Pearson rule). Runs beside the path of requests: values in, value out.
"""

from __future__ import annotations

import numpy as np

from stepwell.quality.logistic import Array, chances
from stepwell.quality.logistic import fit as regress
from stepwell.quality.promise import LEAST_RIGHT, SHUT, Fit, Past, Prior
from stepwell.types import Label

HEAVIEST = 20.0
"""A label stands for no more proposals than this in the regression: a single one must not turn it."""
DOUBT = 8.0
"""Expected errors' worth of belief that the probabilities are right, before audits say otherwise."""
SLACK = 0.93
MOST_CATCH_UP = 1.2
"""How much of a budget that was not used may be used later, at any time, as a multiple of what is promised."""
RECENT = 2000
"""Requests that say what the coming ones are like."""


def fit(past: Past) -> Fit:
    """Learn from the past."""
    steps = {label.step for label in past.labels}
    coefficients = {
        step: learned([label for label in past.labels if label.step == step], past.priors.get(step)) for step in steps
    }
    calibration = calibrated(past.labels)
    tuples = {step: tuple(map(float, each)) for step, each in coefficients.items()}
    cut = chosen(past, coefficients, calibration)
    return Fit(tuples, cut, past.version + 1, len(past.labels), calibration)


def learned(labels: list[Label], prior: Prior | None) -> Array:
    """Coefficients of one step."""
    size = len(labels[-1].features)
    labels = [label for label in labels if len(label.features) == size]
    features = np.array([label.features for label in labels])
    right = np.array([label.right for label in labels], np.float64)
    weights = np.minimum(1 / np.array([label.share for label in labels]), HEAVIEST)
    known = prior is not None and len(prior.mean) == size
    mean = np.array(prior.mean) if prior is not None and known else np.zeros(size)
    precision = np.array(prior.precision) if prior is not None and known else np.ones(size)
    return regress(features, right, weights, mean, precision)


def calibrated(labels: list[Label]) -> float:
    """Wrong answers that audits found for each that was expected at the time; 1 where they have said little."""
    audits = [label for label in labels if label.would_serve]
    expected = sum(1 - label.predicted for label in audits)
    return (DOUBT + sum(not label.right for label in audits)) / (DOUBT + expected)


def chosen(past: Past, coefficients: dict[str, Array], calibration: float) -> float:
    """The cut."""
    if not past.asked:
        return SHUT
    right = np.zeros(len(past.asked))
    for step, each in coefficients.items():
        rows = [row for row, asked in enumerate(past.asked) if asked.step == step and len(asked.features) == len(each)]
        if rows:
            right[rows] = chances(np.array([past.asked[row].features for row in rows]), each)
    wrong = np.minimum(1.0, (1 - right) * calibration)
    served = np.array([asked.served for asked in past.asked])
    spent = wrong[served].sum() / past.num_requests
    goal = SLACK * past.terms.error
    goal = min(MOST_CATCH_UP * goal, 2 * goal - spent)
    last = past.asked[-1].request
    recent = np.array([asked.request > last - RECENT for asked in past.asked])
    worth = np.array([asked.value for asked in past.asked])[recent] / (1 - right[recent] + 1e-9)
    order = np.argsort(-worth)
    errors = np.cumsum(np.where(right[recent] >= LEAST_RIGHT, wrong[recent], 0)[order])
    held = errors / min(RECENT, past.num_requests) <= goal
    if past.terms.hit_error is not None:
        held &= errors / np.arange(1, len(errors) + 1) <= SLACK * past.terms.hit_error
    passed = np.flatnonzero(held)
    return float(worth[order][passed[-1]]) if len(passed) else SHUT
