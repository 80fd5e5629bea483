"""Rows that mean what an earlier row means: semantic deduplication (Abbas et al. 2023) in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepwell.quality.judge import Embed
from stepwell.synth.filters import Deaths, text_of
from stepwell.synth.row import Row

BLOCK = 2048
"""Rows compared at once with all before them."""


async def same_meaning(rows: Sequence[Row], threshold: float, embed: Embed) -> Deaths:
    """Rows whose embedding has at least this cosine to that of an earlier row that stays. Raises EngineError."""
    texts = {at: text for at, row in enumerate(rows) if (text := text_of(row))}
    places = list(texts)
    vectors = await embed(list(texts.values()))
    found = likenesses(vectors, threshold)
    return {places[at]: f"means {rows[places[of]].id}, {cosine:.3f}" for at, (of, cosine) in found.items()}


def likenesses(vectors: NDArray[np.float32], threshold: float) -> dict[int, tuple[int, float]]:
    """Each vector that is like an earlier one that stays: the likest one, and its cosine. Vectors have length 1."""
    found: dict[int, tuple[int, float]] = {}
    staying = np.ones(len(vectors), np.bool_)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        cosines = block @ vectors[: start + len(block)].T
        cosines[:, ~staying[: cosines.shape[1]]] = -1
        for row in np.flatnonzero((np.tril(cosines, start - 1) >= threshold).any(axis=1)).tolist():
            before = cosines[row, : start + row]
            before[~staying[: start + row]] = -1
            of = int(before.argmax()) if len(before) else 0
            if len(before) and before[of] >= threshold:
                found[start + row] = (of, float(before[of]))
                staying[start + row] = False
    return found
