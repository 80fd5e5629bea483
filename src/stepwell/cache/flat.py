"""Nearest neighbours by looking at every vector: exact, and quick while there are some thousands."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numkong
import numpy as np
from numpy.typing import NDArray

from stepwell.cache.vectors import Codes, norm

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Key numbers and cosines, the nearest first."""


class Flat:
    """Codes side by side, in the order of their numbers, which ascend. Thousands of these hold three keys."""

    __slots__ = ("codes", "norms", "num_dimensions", "numbers")

    def __init__(self, num_dimensions: int) -> None:
        self.num_dimensions = num_dimensions
        self.numbers = array("q")
        self.norms = array("f")
        self.codes = bytearray()

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, number: int, codes: Codes) -> None:
        """Add a key's codes."""
        self.numbers.append(number)
        self.norms.append(norm(codes))
        self.codes += codes.tobytes()

    def nearest(self, codes: Codes, k: int) -> Found:
        """The `k` nearest of all."""
        products = np.asarray(numkong.dot(codes[None], self.matrix()))
        cosines = (products / (np.frombuffer(self.norms, np.float32) * norm(codes))).astype(np.float32)
        if len(cosines) > k:
            best = np.argpartition(cosines, -k)[-k:]
            best = best[np.argsort(-cosines[best], kind="stable")]
        else:
            best = np.argsort(-cosines, kind="stable")
        return np.frombuffer(self.numbers, np.int64)[best], cosines[best]

    def matrix(self) -> Codes:
        """All codes, shape (keys, dimensions): a view that must be gone before the next `add`."""
        return np.frombuffer(self.codes, np.int8).reshape(-1, self.num_dimensions)

    def codes_of(self, numbers: NDArray[np.int64]) -> Codes:
        """Codes of keys that are in it."""
        codes: Codes = self.matrix()[[bisect_left(self.numbers, number) for number in numbers.tolist()]]
        return codes

    def remove(self, number: int) -> None:
        """Take a key out, if it is there; the others stay in order."""
        at = bisect_left(self.numbers, number)
        if at == len(self.numbers) or self.numbers[at] != number:
            return
        del self.numbers[at], self.norms[at]
        del self.codes[at * self.num_dimensions : (at + 1) * self.num_dimensions]

    def copy(self) -> tuple[NDArray[np.int64], Codes]:
        """Numbers and codes as they are now, for another thread."""
        return np.array(self.numbers, np.int64), self.matrix().copy()
