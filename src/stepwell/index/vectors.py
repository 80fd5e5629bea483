"""Vectors as they are kept: one byte a dimension. Only their direction counts, so each uses all of its byte.

A vector is scaled to its own largest component: the cosine between two then errs by about 5e-4 (384 dimensions).
A fixed scale, as vector indexes use for int8, would leave a dozen of the 255 steps, and find other neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Codes = NDArray[np.int8]

STEPS = 127


def unsound(vector: Vector, num_dimensions: int = 0) -> str:
    """Why a vector cannot be compared with others: empty where it can; 0 dimensions: as many as it has."""
    if vector.ndim != 1 or vector.size == 0 or vector.size != (num_dimensions or vector.size):
        return f"a vector of shape {vector.shape} instead of ({num_dimensions or 'n'},)"
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        return "a vector that is zero or not finite"
    return ""


def packed(vector: Vector) -> Codes:
    """A sound vector as int8 codes; equal directions give equal codes."""
    codes: Codes = np.rint(vector * np.float32(STEPS / np.abs(vector).max())).astype(np.int8)
    return codes


def unpacked(codes: Codes) -> Vector:
    """Vectors of length 1 from codes, shape (…, dimensions)."""
    vectors: Vector = codes.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors


def norm(codes: Codes) -> float:
    """Length of a vector of codes."""
    wide = codes.astype(np.float32)
    return float(np.sqrt(wide @ wide))


def norms(codes: Codes) -> Vector:
    """Length of each of many vectors of codes."""
    lengths: Vector = np.linalg.norm(codes.astype(np.float32), axis=1).astype(np.float32)
    return lengths
