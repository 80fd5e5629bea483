"""A metric learned from the cache's own keys: wordings of one answer become near, those of others far.

Two covariances say it all (Ioffe, "Probabilistic linear discriminant analysis", ECCV 2006): how wordings of one answer
scatter, and how answers scatter. Where both are diagonal, and the first is one, the likelihood that a question belongs
to an answer, or to none that is known, is a short sum. Nothing is kept for each key: a new metric is swapped in whole.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

NUM_AXES = 128
RIDGE = 0.35
"""Added to the scatter within answers, as a share of its mean variance: few keys say little about 384 directions."""
LEAST_PAIRS = 30
"""Keys beyond the first of their answer, below which nothing is learned."""
FIRST, GROWTH = 60, 1.25
"""Keys at which the first metric is learned, and how many times more make the next one worth while."""
MOST_KEYS = 20_000
"""The newest keys, from which a metric is learned: about a second of work."""
LEAST_BETWEEN = 0.01

Matrix = NDArray[np.float32]


class Metric(Struct, frozen=True):
    """Axes on which wordings of one answer have variance 1, and answers the variances `between`."""

    mean: Matrix
    """(dimensions,)"""
    axes: Matrix
    """(dimensions, axes)"""
    between: Matrix
    """(axes,), falling."""
    num_keys: int
    version: int


def due(num_keys: int, metric: Metric | None) -> bool:
    """Whether so many keys have come that a new metric is worth its work."""
    return num_keys >= (FIRST if metric is None else GROWTH * metric.num_keys + 10)


def learn(vectors: Matrix, answers: NDArray[np.int64], version: int = 1) -> Metric | None:
    """Learn from keys (keys, dimensions) and their answers' numbers; None where too few answers have several keys.

    The newest `MOST_KEYS` are used; vectors have length 1.
    """
    vectors, answers = vectors[-MOST_KEYS:], answers[-MOST_KEYS:]
    _, place, counts = np.unique(answers, return_inverse=True, return_counts=True)
    several = counts > 1
    num_pairs = int((counts[several] - 1).sum())
    if num_pairs < LEAST_PAIRS:
        return None
    mean = vectors.mean(0)
    centres = np.zeros((len(counts), vectors.shape[1]), np.float32)
    np.add.at(centres, place, vectors)
    centres /= counts[:, None]
    apart = (vectors - centres[place])[several[place]]
    within = apart.T @ apart / num_pairs
    spread = centres[several] - mean
    between = spread.T @ spread / int(several.sum()) - within * float(np.mean(1 / counts[several]))
    axes, variances = diagonal(within.astype(np.float64), between.astype(np.float64))
    return Metric(mean, axes, variances, len(vectors), version)


def diagonal(within: NDArray[np.float64], between: NDArray[np.float64]) -> tuple[Matrix, Matrix]:
    """Axes (dimensions, axes) that make `within`, with its ridge, one and `between` diagonal; and its variances."""
    size = len(within)
    variances, turned = np.linalg.eigh(within + RIDGE * np.trace(within) / size * np.eye(size))
    white = turned / np.sqrt(variances)
    spread, turned = np.linalg.eigh(white.T @ between @ white)
    kept = slice(size - 1, None, -1) if size <= NUM_AXES else slice(size - 1, size - 1 - NUM_AXES, -1)
    axes = (white @ turned[:, kept]).astype(np.float32)
    return np.ascontiguousarray(axes), np.maximum(spread[kept], LEAST_BETWEEN).astype(np.float32)


def likelihoods(metric: Metric, point: Matrix, sums: Matrix, counts: Matrix) -> tuple[Matrix, Matrix, float]:
    """Log likelihoods that a point on the axes belongs to each answer, how far it is from them, and of none of them.

    `sums` (answers, axes) are of each answer's keys, `counts` (answers,) how many those are.
    """
    shrunk = metric.between / (1 + counts[:, None] * metric.between)
    off = point - shrunk * sums
    distances = (off * off / (1 + shrunk)).sum(1)
    known = -0.5 * (distances + np.log1p(shrunk).sum(1))
    wide = 1 + metric.between
    unknown = -0.5 * float((point * point / wide).sum() + np.log(wide).sum())
    return known, distances / len(point), unknown
