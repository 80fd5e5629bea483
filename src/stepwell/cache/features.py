"""Which answer a question's neighbours speak for, and what the promise weighs that answer by.

The neighbours vote twice: by their cosine, and by the likelihoods of a learned metric, in which an answer is the mean
of its keys among the neighbours. So nothing has to be kept for each answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.cache.metric import Metric, likelihoods

NUM_NEIGHBOURS = 32
VERSION = 1
"""Of the features: raised when their meaning changes, so that older labels are left aside."""
NAMES = (
    "one",
    "cosine",
    "cosine_squared",
    "cosine_ahead",
    "vote",
    "nearest",
    "dense",
    "posterior",
    "likelihood_ahead",
    "likelihood_known",
    "distance",
    "score",
    "second",
    "num_own",
    "num_keys",
    "angle",
    "angle_ahead",
    "angle_vote",
    "cosine_posterior",
    "vote_posterior",
    "angle_posterior",
    "distance_posterior",
    "posterior_share",
    "vote_share",
)
HEAT = 3.0
"""Divides log likelihoods: directions are not as independent as the metric takes them to be."""
LEAST_COSINE = 1e-3
SHARP, SHARP_ANGLE = 6, 12.0
"""How much more the nearest neighbours' votes count: a power of the cosine, a factor in the exponent of the angle."""

Vector = NDArray[np.float32]


class Near(Struct, frozen=True):
    """A question's neighbours, the nearest first."""

    cosines: Vector
    """(neighbours,)"""
    vectors: Vector
    """(neighbours, dimensions), of length 1."""
    answers: Sequence[bytes]
    """Which answer each one has, by name."""
    allowed: Sequence[bool]
    """False for a key that the guard vetoes: it may not answer, but its nearness still counts against the others."""


class Weighed(Struct, frozen=True, gc=False):
    """The answer that the neighbours speak for: its nearest key, as a row of the neighbours, and the features."""

    row: int
    features: tuple[float, ...]


class Votes(Struct, frozen=True):
    """Which neighbour has which answer: answers are numbered in the order in which they come, the nearest first."""

    cosines: Vector
    of: NDArray[np.int64]
    """(neighbours,)"""
    allowed: NDArray[np.bool_]
    """(answers,)"""
    shares: NDArray[np.float64]
    """(answers,): votes by cosine."""


class Space(Struct, frozen=True):
    """What the learned metric says of each answer; without one, what the votes say."""

    posterior: NDArray[Any]
    likelihoods: Vector
    distances: Vector
    unknown: float
    angles: Vector
    """(neighbours,)"""


def weigh(query: Vector, near: Near, metric: Metric | None, num_keys: int) -> Weighed | None:
    """Choose the answer and its features; None where no neighbour is allowed, or a number is not finite.

    `query` (dimensions,) has length 1; `num_keys` are searched in all.
    """
    if not any(near.allowed):
        return None
    votes = count(near)
    space = measure(query, near.vectors, votes, metric)
    scores = np.where(votes.allowed, 2 * space.posterior + votes.shares, -1)
    best = int(scores.argmax())
    own = votes.of == best
    row = int((own & np.asarray(near.allowed)).argmax())
    features = tuple(described(votes, space, best, row, num_keys))
    return Weighed(row, features) if all(map(math.isfinite, features)) else None


def count(near: Near) -> Votes:
    """Number the answers, and count the votes by cosine."""
    numbers: dict[bytes, int] = {}
    of = np.array([numbers.setdefault(answer, len(numbers)) for answer in near.answers])
    free = np.zeros(len(numbers), bool)
    free[of[np.asarray(near.allowed)]] = True
    weights = np.bincount(of, np.maximum(near.cosines, LEAST_COSINE) ** SHARP)
    return Votes(near.cosines, of, free, weights / weights.sum())


def measure(query: Vector, vectors: Vector, votes: Votes, metric: Metric | None) -> Space:
    """Ask the metric; the mean of an answer's keys among the neighbours stands for the answer."""
    if metric is None:
        flat = np.zeros(len(votes.shares), np.float32)
        return Space(votes.shares, flat, flat + 1, 0.0, votes.cosines)
    points = (np.concatenate((query[None], vectors)) - metric.mean) @ metric.axes
    point, keys = points[0], points[1:]
    own = (votes.of == np.arange(len(votes.shares))[:, None]).astype(np.float32)
    counts = own.sum(1)
    known, distances, unknown = likelihoods(metric, point, own @ keys, counts)
    logs = known / HEAT + np.log(counts)
    top = max(float(logs.max()), unknown / HEAT)
    odds = np.exp(logs - top)
    posterior = odds / (odds.sum() + math.exp(unknown / HEAT - top))
    angles = keys @ point / np.sqrt((keys * keys).sum(1) * (point @ point) + 1e-12)
    return Space(posterior, known, distances, unknown, angles)


def described(votes: Votes, space: Space, best: int, row: int, num_keys: int) -> list[float]:
    """The features of one answer, in the order of `NAMES`."""
    own = votes.of == best
    cosine, three = float(votes.cosines[row]), float(votes.cosines[:3].mean())
    posterior, vote, distance = float(space.posterior[best]), float(votes.shares[best]), float(space.distances[best])
    if own.all():
        other_cosine, second = float(votes.cosines[-1]) - 0.05, 0.0
        ahead = float(space.likelihoods[best]) - space.unknown
        angle_ahead, angle_vote = float(space.angles.max()), 1.0
    else:
        other_cosine, second = float(votes.cosines[~own].max()), highest_but(space.posterior, best)
        ahead = float(space.likelihoods[best]) - highest_but(space.likelihoods, best)
        weights = np.exp(SHARP_ANGLE * space.angles)
        angle_ahead = float(space.angles[own].max() - space.angles[~own].max())
        angle_vote = float(weights[own].sum() / weights.sum())
    log_posterior, log_vote, log_angle = logit(posterior, 1e-4), logit(vote, 0.02), logit(angle_vote, 0.01)
    known = float(space.likelihoods[best]) - space.unknown
    return [
        1.0,
        cosine,
        cosine * cosine,
        cosine - other_cosine,
        log_vote,
        float(votes.of[0] == best),
        three,
        log_posterior,
        clipped(ahead / 10),
        clipped(known / 15),
        distance,
        (2 * posterior + vote) / 3,
        second,
        math.log1p(float(own.sum())),
        math.log1p(num_keys) / 9,
        float(space.angles[own].max()),
        angle_ahead,
        log_angle,
        cosine * log_posterior / 5,
        log_vote * log_posterior / 5,
        log_angle * log_posterior / 5,
        distance * log_posterior / 5,
        posterior,
        vote,
    ]


def highest_but(values: NDArray[Any], place: int) -> float:
    """The highest of all values but one."""
    others = values.copy()
    others[place] = -np.inf
    return float(others.max())


def logit(share: float, floor: float) -> float:
    """Log odds of a share, which `floor` keeps finite."""
    return math.log((share + floor) / (1 - share + floor))


def clipped(value: float) -> float:
    """Within -3 and 3."""
    return max(-3.0, min(3.0, value))
