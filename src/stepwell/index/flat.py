"""Nearest neighbours by looking at every vector: exact, and quick while there are some thousands."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

import numkong
import numpy as np
from numpy.typing import NDArray

from stepwell.index.vectors import Codes, norm, norms

Numbers = NDArray[np.int64]
Cosines = NDArray[np.float32]
Found = tuple[Numbers, Cosines]
"""Key numbers and cosines, the nearest first."""
Near = tuple[Numbers, Cosines, Codes]
"""The same, and what was found."""


class Flat:
    """Codes side by side, in the order of their numbers, which ascend. Thousands of these hold three keys each."""

    __slots__ = ("codes", "norms", "num_dimensions", "numbers")

    def __init__(self, num_dimensions: int) -> None:
        self.num_dimensions = num_dimensions
        self.numbers = array("q")
        self.norms = array("f")
        self.codes = bytearray()

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, numbers: Numbers, codes: Codes) -> None:
        """Add keys; their numbers ascend, from above all that are there."""
        self.numbers.frombytes(numbers.tobytes())
        self.norms.frombytes(norms(codes).tobytes())
        if self.codes:
            self.codes += codes.tobytes()
        else:
            self.codes = bytearray(codes.tobytes())  # with no room for more: most of many cells grow no further

    def nearest(self, codes: Codes, k: int) -> Found:
        """The `k` nearest of all."""
        numbers, cosines, _ = self.near(codes, k)
        return numbers, cosines

    def near(self, codes: Codes, k: int) -> Near:
        """The same with their codes."""
        products = np.asarray(numkong.dot(codes[None], self.matrix()))
        lengths = np.frombuffer(self.norms, np.float32) * np.float32(norm(codes))
        rows, cosines = best((products / lengths).astype(np.float32), k)
        return np.frombuffer(self.numbers, np.int64)[rows], cosines, self.matrix()[rows]

    def matrix(self) -> Codes:
        """All codes, shape (keys, dimensions): a view that must be gone before the next `add`."""
        return np.frombuffer(self.codes, np.int8).reshape(-1, self.num_dimensions)

    def codes_of(self, numbers: list[int]) -> Codes:
        """Codes of keys that are in it."""
        codes: Codes = self.matrix()[[bisect_left(self.numbers, number) for number in numbers]]
        return codes

    def remove(self, numbers: Numbers) -> None:
        """Take keys out, those that are there; the others stay in order."""
        mine = np.frombuffer(self.numbers, np.int64)
        kept = ~np.isin(mine, numbers)
        if not kept.all():
            self.codes = bytearray(self.matrix()[kept].tobytes())
            self.norms = array("f", np.frombuffer(self.norms, np.float32)[kept].tobytes())
            self.numbers = array("q", mine[kept].tobytes())

    def above(self, number: int) -> tuple[Numbers, Codes]:
        """Copies of the numbers above one, and of their codes: for another thread."""
        start = bisect_right(self.numbers, number)
        return np.array(self.numbers[start:], np.int64), self.matrix()[start:].copy()


def best(cosines: Cosines, k: int) -> tuple[NDArray[np.intp], Cosines]:
    """Rows and values of the `k` highest cosines, in order."""
    if len(cosines) <= k:
        rows = np.argsort(-cosines, kind="stable")
    else:
        some = np.argpartition(cosines, -k)[-k:]
        rows = some[np.argsort(-cosines[some], kind="stable")]
    return rows, cosines[rows]
