"""Made-up meanings: answers are directions, wordings lie around them, some directions scatter more than others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 48
Vectors = NDArray[np.float32]


def meanings(num: int, seed: int) -> Vectors:
    return unit(np.random.default_rng(seed).normal(size=(num, DIMENSIONS)))


def wordings(centres: Vectors, answers: NDArray[np.int64], seed: int, noise: float = 1.0) -> Vectors:
    chance = np.random.default_rng(seed)
    scatter = np.where(np.arange(DIMENSIONS) < 8, 0.6, 0.12) * noise
    return unit(centres[answers] + chance.normal(size=(len(answers), DIMENSIONS)) * scatter)


def unit(vectors: NDArray[np.float64] | Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
