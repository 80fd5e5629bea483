"""Peers on the same vectors and requests: a plain threshold, vCache re-derived, and GPTCache itself where installed.

vCache (Schroeder et al., 2025): each kept question has a logistic model of its own, from similarity to right, fitted to
what was found out about it; a confidence bound on where it turns says how often a near question must be explored rather
than served. Its code may not be reused, so this is written from its paper. GPTCache is run as its examples do: SQLite,
distance as evaluation, similarity threshold 0.8; its index is a flat one of ours, for its own do not load here.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cache.texts import Vectors

Share = tuple[float, float]
"""Hits and wrong hits, both as shares of the requests."""
HALVINGS = 7
"""Of thresholds between 0.6 and 1: to 0.003."""
NUM_GPTCACHE = 1000
LEAST_SEEN = 6
"""Observations of an entry below which vCache explores: two of them are made up, at similarity 0 and 1."""
GRID = np.linspace(1e-6, 1 - 1e-6, 50)
QUANTILES = np.array([NormalDist().inv_cdf(1 - each) for each in GRID])


class Nearest:
    """Kept questions, and the nearest of them."""

    def __init__(self, num: int, num_dimensions: int) -> None:
        self.matrix = np.empty((num, num_dimensions), np.float32)
        self.names: list[int] = []

    def add(self, vector: Vectors, name: int) -> None:
        """Keep a question."""
        self.matrix[len(self.names)] = vector
        self.names.append(name)

    def find(self, vector: Vectors) -> tuple[int, float]:
        """Name and cosine of the nearest."""
        cosines = self.matrix[: len(self.names)] @ vector
        best = int(cosines.argmax())
        return self.names[best], float(cosines[best])


def threshold(vectors: Vectors, answers: Sequence[bytes], rows: Sequence[int], least: float) -> Share:
    """Serve the nearest question's answer where its cosine is high enough."""
    near, hits, wrong = Nearest(len(rows), vectors.shape[1]), 0, 0
    for number, row in enumerate(rows):
        found, cosine = near.find(vectors[row]) if number else (0, 0.0)
        if number and cosine >= least:
            hits += 1
            wrong += answers[rows[found]] != answers[row]
        else:
            near.add(vectors[row], number)
    return hits / len(rows), wrong / len(rows)


def best_threshold(vectors: Vectors, answers: Sequence[bytes], rows: Sequence[int], error: float) -> Share:
    """The most hits of any threshold whose error is small enough: chosen in hindsight, as no operator can."""
    low, high, best = 0.6, 1.0, (0.0, 0.0)
    for _ in range(HALVINGS):
        least = (low + high) / 2
        found = threshold(vectors, answers, rows, least)
        if found[1] <= error:
            best, high = max(best, found), least
        else:
            low = least
    return best


def vcache(vectors: Vectors, answers: Sequence[bytes], rows: Sequence[int], error: float) -> Share:
    """One run of vCache."""
    chance, near, hits, wrong = np.random.default_rng(0), Nearest(len(rows), vectors.shape[1]), 0, 0
    seen: dict[int, list[tuple[float, bool]]] = {}
    for number, row in enumerate(rows):
        if not number:
            near.add(vectors[row], number)
            seen[number] = [(0.0, False), (1.0, True)]
            continue
        found, cosine = near.find(vectors[row])
        right = answers[rows[found]] == answers[row]
        if chance.random() > explores(seen[found], cosine, error):
            hits += 1
            wrong += not right
            continue
        seen[found].append((cosine, right))
        if not right:
            near.add(vectors[row], number)
            seen[number] = [(0.0, False), (1.0, True)]
    return hits / len(rows), wrong / len(rows)


def explores(seen: list[tuple[float, bool]], cosine: float, error: float) -> float:
    """The probability with which an entry explores."""
    if len(seen) < LEAST_SEEN:
        return 1.0
    cosines, right = np.array([each[0] for each in seen]), np.array([each[1] for each in seen], float)
    steepness, turn, variance = entry(cosines, right)
    turns = np.clip(turn + QUANTILES * math.sqrt(variance), 0, 1)
    sure = (1 - GRID) / (1 + np.exp(-np.clip(steepness * (cosine - turns), -30, 30)))
    return float((1 - error / np.maximum(1 - sure, 1e-12)).min())


def entry(cosines: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[float, float, float]:
    """Steepness, turning point and its variance, of one entry's logistic model."""
    rows = np.stack([np.ones_like(cosines), cosines], axis=1)
    weights, curve = np.zeros(2), np.eye(2)
    for _ in range(22):
        likely = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        curve = (rows * (likely * (1 - likely))[:, None]).T @ rows + 1e-9 * np.eye(2)
        weights = weights + np.linalg.solve(curve, rows.T @ (right - likely))
        if abs(np.linalg.det(curve)) < 1e-12:
            break
    steepness = max(float(weights[1]), 1e-6)
    turn = float(np.clip(-weights[0] / steepness, 0, 1))
    if cosines[right == 1].min() > cosines[right == 0].max():
        return steepness, turn, max(0.2 / len(cosines), 0.008)
    slope = np.array([-1 / steepness, weights[0] / steepness**2])
    return steepness, turn, max(0.0, float(slope @ np.linalg.solve(curve, slope)))


def gptcache(texts: Sequence[str], vectors: Vectors, answers: Sequence[bytes], rows: Sequence[int]) -> Share | None:
    """GPTCache's own put and get on the first requests; None where it is not installed."""
    if find_spec("gptcache") is None or find_spec("sqlalchemy") is None:
        return None
    rows = rows[:NUM_GPTCACHE]
    of = {texts[row]: row for row in rows}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        get, put = opened(Path(folder), lambda text, **_: vectors[of[text]])
        hits = wrong = 0
        for row in rows:
            found = get(texts[row])
            if found is None:
                put(texts[row], answers[row].hex())
            else:
                hits += 1
                wrong += found != answers[row].hex()
    return hits / len(rows), wrong / len(rows)


def opened(folder: Path, embed: Callable[..., Any]) -> tuple[Callable[[str], str | None], Callable[[str, str], None]]:
    """GPTCache over a fresh folder: how to ask it, and how to tell it."""
    from gptcache import Cache  # noqa: PLC0415 - only where it is installed
    from gptcache.adapter.api import get, put  # noqa: PLC0415
    from gptcache.manager import CacheBase, get_data_manager  # noqa: PLC0415
    from gptcache.manager.vector_data.base import VectorBase  # noqa: PLC0415
    from gptcache.processor.pre import get_prompt  # noqa: PLC0415
    from gptcache.similarity_evaluation import SearchDistanceEvaluation  # noqa: PLC0415

    class Flat(VectorBase):  # type: ignore[misc]
        """Squared distances to every vector, as its default index gives them."""

        near = Nearest(NUM_GPTCACHE, 384)

        def mul_add(self, datas: Sequence[Any]) -> None:
            for each in datas:
                self.near.add(each.data, each.id)

        def search(self, data: Vectors, top_k: int = 1) -> list[tuple[float, int]]:  # noqa: ARG002 - it asks for one
            if not self.near.names:
                return []
            name, cosine = self.near.find(data)
            return [(2 - 2 * cosine, name)]

        def rebuild(self, ids: object = None) -> bool:  # noqa: ARG002
            return True

        def delete(self, ids: object) -> bool:  # noqa: ARG002
            return True

    cache = Cache()
    manager = get_data_manager(CacheBase("sqlite", sql_url=f"sqlite:///{folder}/answers.db"), Flat())
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=embed,
        data_manager=manager,
        similarity_evaluation=SearchDistanceEvaluation(),
    )
    return (lambda text: get(text, cache_obj=cache)), (lambda text, answer: put(text, answer, cache_obj=cache))
