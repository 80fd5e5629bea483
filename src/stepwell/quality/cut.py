"""Where to cut: fit probabilities to the labels, then let pass as many answers as the budget of errors pays for.

Served is what has the most value for its risk, until the errors expected of all that is served reach what is promised
(the fractional knapsack, which is the Neyman-Pearson rule). Runs beside the path of requests: values in, value out.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from msgspec import Struct

from stepwell.quality.bend import bending, bent_all
from stepwell.quality.logistic import Array, chances
from stepwell.quality.logistic import fit as regress
from stepwell.quality.promise import LEAST_RIGHT, SHUT, SUREST, Belief, Fit, Learned, Past
from stepwell.types import Label

RIDGE = 1.0
"""Precision with which coefficients are believed to be near 0."""
LEAST_ODDS = 0.0
"""The curve that bends log odds is fitted to labels above these: below, nothing is served."""
MOST_CATCH_UP = 1.2
"""How much of a budget that was not used may be used later, at any time, as a multiple of what is promised."""
ALARM = 1.25
"""Calibration from which on nothing is caught up: what was not used may have been needed."""
LEAST_ASKED = 200
"""Proposals of its own without which a process goes by the labels of all."""
RECENT = 2000
"""Requests that say what the coming ones are like."""
FEW = 4
"""Principals below which none of them can be told from the crowd."""
MOST_OF_OTHERS = 1 / 3
"""What the labels of one principal may weigh, as a share of all others': a quarter of all."""
NUM_AUDITS = 80
"""The newest audits: they say whether probabilities are too high or too low."""
DOUBT = 10.0
"""Expected errors that are weighed against what audits found."""

LEAST_OF_STEP = 50
"""Labels of one step without which nothing of it is served."""


def fit(past: Past) -> Fit:
    """Learn from the past."""
    by_step: dict[str, list[Label]] = {}
    for label in past.labels:
        by_step.setdefault(label.step, []).append(label)
    steps = {step: learned(labels, past.belief) for step, labels in by_step.items() if len(labels) >= LEAST_OF_STEP}
    calibration = calibrated([label for label in past.labels if label.would_serve][-NUM_AUDITS:])
    return Fit(steps, chosen(past, steps, calibration), past.version + 1, len(past.labels), calibration)


def learned(labels: list[Label], belief: Belief) -> Learned:
    """Coefficients of one step, and how its log odds bend: both from labels of the newest version only.

    Whether a proposal is labelled depends on its features alone, so the regression needs no weights for that; only
    what is said of shares does. The curve is fitted to log odds from the half of the labels that a label is not in.
    """
    newest = labels[-1]
    labels = [each for each in labels if each.version == newest.version and len(each.features) == len(newest.features)]
    features = np.array([label.features for label in labels])
    right = np.array([label.right for label in labels], np.float64)
    weights = fair([label.key for label in labels])
    mean, precision = np.zeros(features.shape[1]), np.full(features.shape[1], RIDGE)
    odds = np.empty(len(labels))
    for half in (0, 1):
        other = np.arange(len(labels)) % 2 == half
        odds[other] = features[other] @ regress(features[~other], right[~other], weights[~other], mean, precision)
    likely = odds > LEAST_ODDS
    bend = bending(odds[likely], right[likely], weights[likely], belief.bend, belief.firmness)
    coefficients = regress(features, right, weights, mean, precision)
    return Learned(tuple(map(float, coefficients)), bend)


def fair(principals: list[bytes]) -> Array:
    """Weights of labels: one principal's weigh no more than a share of all, so that nobody bends it alone."""
    num = Counter(principals)
    if len(num) < FEW:
        return np.ones(len(principals))
    return np.array([min(1.0, MOST_OF_OTHERS * (len(principals) / num[who] - 1)) for who in principals])


def calibrated(audits: list[Label]) -> float:
    """How many times more errors audits found than were expected at the time: 1 where they have said little."""
    weights: list[float] = fair([label.key for label in audits]).tolist()
    found = sum(weight for weight, label in zip(weights, audits, strict=True) if not label.right)
    expected = sum(weight * (1 - label.predicted) for weight, label in zip(weights, audits, strict=True))
    return (DOUBT + found) / (DOUBT + expected)


def chosen(past: Past, steps: dict[str, Learned], calibration: float) -> float:
    """The cut: as deep as the errors of the recent proposals allow that would pass it."""
    crowd = own(past, steps) if len(past.asked) >= LEAST_ASKED else told(past, steps)
    caution = cautious(past)
    goal = caution * past.terms.error
    goal = min((MOST_CATCH_UP if calibration < ALARM else 1.0) * goal, 2 * goal - crowd.spent * calibration)
    order = np.argsort(-crowd.worth)
    wrong = np.where(crowd.right >= LEAST_RIGHT, np.minimum(1.0, (1 - crowd.right) * calibration), 0) * crowd.weights
    errors = np.cumsum(wrong[order])
    held = errors / max(1.0, crowd.num_requests) <= goal
    if past.terms.hit_error is not None:
        held &= errors / np.cumsum(crowd.weights[order]) <= caution * past.terms.hit_error
    passed = np.flatnonzero(held)
    return float(crowd.worth[order][passed[-1]]) if len(passed) else SHUT


def cautious(past: Past) -> float:
    """What part of the budget is used: the less labels there are, and the fewer errors are promised, the less."""
    return max(0.0, 1 - past.belief.caution / math.sqrt(max(1e-9, past.terms.strictest() * len(past.labels))))


class Crowd(Struct, frozen=True):
    """Proposals that say what the coming ones are like."""

    right: Array
    worth: Array
    """value / (1 - p)"""
    weights: Array
    """How many each one stands for."""
    num_requests: float
    spent: float
    """Errors that are expected among what was served, as a share of the requests."""


def own(past: Past, steps: dict[str, Learned]) -> Crowd:
    """The newest of those that this process ruled on."""
    right = rights([(asked.step, asked.features) for asked in past.asked], steps)
    served = np.array([asked.served for asked in past.asked])
    spent = float((1 - right)[served].sum()) / past.num_requests
    last = past.asked[-1].request
    recent = np.array([asked.request > last - RECENT for asked in past.asked])
    worth = np.array([asked.value for asked in past.asked])[recent] / (1 - right[recent])
    return Crowd(right[recent], worth, np.ones(len(worth)), min(RECENT, past.num_requests), spent)


def told(past: Past, steps: dict[str, Learned]) -> Crowd:
    """After a start, those that labels tell of: each stands for as many as were not looked at."""
    right = rights([(label.step, label.features) for label in past.labels], steps)
    weights = 1 / np.array([label.share for label in past.labels])
    return Crowd(right, 1 / (1 - right), weights, float(weights.sum()), 0.0)


def rights(proposals: list[tuple[str, tuple[float, ...]]], steps: dict[str, Learned]) -> Array:
    """How likely each of these proposals is right, as it is seen now."""
    right = np.zeros(len(proposals))
    for step, how in steps.items():
        size = len(how.coefficients)
        rows = [row for row, (name, features) in enumerate(proposals) if name == step and len(features) == size]
        if rows:
            odds = np.array([proposals[row][1] for row in rows]) @ np.array(how.coefficients)
            right[rows] = chances(np.minimum(SUREST, bent_all(odds, how.bend)))
    return right
