"""What every embedder takes and gives: readable texts, and vectors of length 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepwell.errors import EngineBadReply

Vectors = NDArray[np.float32]

LENGTH_ERROR = 1e-3


def readable(text: str) -> str:
    """A text without half characters (lone surrogates), which neither JSON nor a tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def checked(vectors: Vectors, engine: str, shape: tuple[int, int]) -> Vectors:
    """The same vectors. Raises EngineBadReply unless all are there, finite and of length 1."""
    if vectors.shape != shape:
        raise EngineBadReply(f"vectors of shape {vectors.shape} instead of {shape}", engine=engine)
    lengths = np.linalg.norm(vectors, axis=1)
    if not bool(np.all(np.abs(lengths - 1) < LENGTH_ERROR)):  # False for NaN, too
        raise EngineBadReply("a vector that is not finite or not of length 1", engine=engine)
    return vectors
