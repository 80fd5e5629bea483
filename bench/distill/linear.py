"""The small student of `active.py`: softmax regression on vectors, which learns from labels and from what is near them.

Labels spread over a graph of nearest neighbours (Zhou et al., Learning with Local and Global Consistency, 2004); what
they reach counts by how sure it is, and less than a label. Every arm of the benchmark trains this same student.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, diags_array

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NUM_NEIGHBOURS, SHARPNESS = 10, 8.0
SPREAD, NUM_SPREADS = 0.9, 20
SCALE, PRIOR, NEAR_WEIGHT, LEAST_WEIGHT, NUM_STEPS = 5.0, 1.0, 0.3, 0.02, 60


def neighbours(vectors: Floats) -> csr_array:
    """The graph, symmetric and normalised by degree."""
    near = vectors @ vectors.T
    np.fill_diagonal(near, -1)
    columns = np.argpartition(-near, NUM_NEIGHBOURS, axis=1)[:, :NUM_NEIGHBOURS].ravel()
    rows = np.repeat(np.arange(len(vectors)), NUM_NEIGHBOURS)
    weights = np.exp(-SHARPNESS * (1 - near[rows, columns]))
    graph = csr_array((weights, (rows, columns)), shape=(len(vectors),) * 2)
    graph = graph.maximum(graph.T)
    degree = diags_array(1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    return csr_array(degree @ graph @ degree).astype(np.float32)


def spread(graph: csr_array, taught: Ints, answers: Ints) -> tuple[Floats, Ints]:
    """Each text's shares of the answers that are near it, (texts, answers known), and which answers these are."""
    known, columns = np.unique(answers, return_inverse=True)
    given = np.zeros((graph.shape[0], len(known)), np.float32)
    given[taught, columns] = 1
    start = given / np.sqrt(given.sum(axis=0))
    reached = start
    for _ in range(NUM_SPREADS):
        reached = SPREAD * (graph @ reached) + (1 - SPREAD) * start
    shares = reached / np.maximum(reached.sum(axis=1, keepdims=True), 1e-12)
    shares[taught] = given[taught]
    return shares, known


class Student:
    """Weights (dimensions + 1, answers known)."""

    def __init__(self, vectors: Floats, graph: csr_array, taught: Ints, answers: Ints) -> None:
        """Learn from the answers to the texts that were taught."""
        shares, self.known = spread(graph, taught, answers)
        weights = NEAR_WEIGHT * shares.max(axis=1) ** 2
        weights[taught] = 1.0
        used = weights > LEAST_WEIGHT
        self.weights = fitted(framed(vectors[used]), shares[used], weights[used])

    def chances(self, vectors: Floats) -> Floats:
        """Probabilities of the answers known."""
        odds = framed(vectors) @ self.weights
        likely = np.exp(odds - odds.max(axis=1, keepdims=True))
        found: Floats = likely / likely.sum(axis=1, keepdims=True)
        return found

    def answers(self, vectors: Floats) -> Ints:
        """The likeliest answers."""
        return self.known[self.chances(vectors).argmax(axis=1)]


def framed(vectors: Floats) -> Floats:
    """Scaled, with a column of ones."""
    return np.concatenate([SCALE * vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


def fitted(rows: Floats, shares: Floats, weights: Floats) -> Floats:
    """Most probable weights of a softmax regression under a Gaussian prior, by L-BFGS."""
    shape = (rows.shape[1], shares.shape[1])

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = flat.reshape(shape).astype(np.float32)
        odds = rows @ now
        odds -= odds.max(axis=1, keepdims=True)
        logp = odds - np.log(np.exp(odds).sum(axis=1, keepdims=True))
        slope = rows.T @ (weights[:, None] * (np.exp(logp) - shares))
        slope[:-1] += PRIOR * now[:-1]
        height = -float((weights[:, None] * shares * logp).sum()) + 0.5 * PRIOR * float((now[:-1] ** 2).sum())
        return height, slope.ravel().astype(np.float64)

    start = np.zeros(shape).ravel()
    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": NUM_STEPS}).x
    return found.reshape(shape).astype(np.float32)
