"""Nearest neighbours by walking a graph (HNSW, Malkov and Yashunin, arXiv 1603.09320): for many vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index as Usearch

from stepwell.cache.flat import Found
from stepwell.cache.vectors import Codes

CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 12, 128, 128
"""Chosen for recall@1 above .99 at 100,000 keys: see docs/measurements/index.md."""


class Graph:
    """Codes of many keys and the graph over them, both kept by usearch."""

    __slots__ = ("index", "num_dimensions")

    def __init__(self, num_dimensions: int) -> None:
        self.num_dimensions = num_dimensions
        self.index: Any = Usearch(
            ndim=num_dimensions,
            metric="cos",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )

    def __len__(self) -> int:
        return len(self.index)

    def add(self, number: int, codes: Codes) -> None:
        """Add a key's codes."""
        self.index.add(number, codes, threads=1)

    def add_many(self, numbers: NDArray[np.int64], codes: Codes) -> None:
        """Add many, with Python's lock released: for a thread of its own."""
        self.index.add(numbers.astype(np.uint64), codes, threads=1)

    def nearest(self, codes: Codes, k: int) -> Found:
        """The `k` nearest, of which the graph may miss one in a hundred."""
        found = self.index.search(codes, k, threads=1)
        return found.keys.astype(np.int64), 1 - found.distances

    def codes_of(self, numbers: NDArray[np.int64]) -> Codes:
        """Codes of keys that are in it."""
        return np.stack(self.index.get(numbers.astype(np.uint64)))

    def remove(self, number: int) -> None:
        """Take a key out; its place in the graph is used again."""
        if number in self.index:
            self.index.remove(number)
