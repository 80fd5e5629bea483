"""Nearest neighbours among many: in the cells whose centres are nearest (inverted file; Jégou et al., PAMI 2011).

The centres are spherical k-means over a sample. Against a graph (HNSW) the same recall at the same time, but no
links to hold in memory and on disk, nothing left behind where a key is removed, and built thirty times as quickly:
docs/measurements/index.md. So nothing of it needs to be saved: the log of keys is enough.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise

import numkong
import numpy as np
from numpy.typing import NDArray

from stepwell.index.flat import Flat, Found, Near, Numbers, best
from stepwell.index.vectors import Codes, Vector, norm, packed, unpacked

CELLS_A_ROOT, KEYS_A_CELL, MAX_CELLS = 1.6, 128, 65_535
"""So many cells for the square root of the number of keys, but none with fewer keys than that on average."""
PROBES, FAR_PROBES, NEAR = 12, 48, 0.75
"""Cells looked through: few, and where the best cosine in them is below `NEAR`, more. Chosen for recall@1 above .99."""
SAMPLE_A_CELL, ROUNDS = 24, 6
ROWS_AT_ONCE = 4096


class Cells:
    """Keys in cells, each looked through as a whole."""

    __slots__ = ("centres", "flats", "num_at_first", "num_dimensions", "numbers", "places")

    def __init__(self, numbers: Numbers, codes: Codes, centres: Codes, sizes: NDArray[np.int64]) -> None:
        """Keys stand cell by cell, their numbers ascending in each; `sizes` has how many keys each cell has."""
        self.num_dimensions, self.num_at_first = codes.shape[1], len(numbers)
        self.centres = Flat(self.num_dimensions)
        self.centres.add(np.arange(len(centres)), centres)
        self.flats = [Flat(self.num_dimensions) for _ in centres]
        ends = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        for flat, (start, end) in zip(self.flats, pairwise(ends), strict=True):
            flat.add(numbers[start:end], codes[start:end])
        places, order = np.repeat(np.arange(len(centres), dtype=np.uint16), sizes), np.argsort(numbers)
        self.numbers, self.places = array("q", numbers[order].tobytes()), array("H", places[order].tobytes())

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, numbers: Numbers, codes: Codes) -> None:
        """Add keys; their numbers ascend, from above all that are there."""
        for number, one in zip(numbers, codes, strict=True):
            place = int(self.centres.nearest(one, 1)[0][0])
            self.places.append(place)
            self.flats[place].add(number[None], one[None])
        self.numbers.frombytes(numbers.tobytes())

    def nearest(self, codes: Codes, k: int) -> Found:
        """The `k` nearest, of which one in a hundred may be missed."""
        numbers, cosines, _ = self.near(codes, k)
        return numbers, cosines

    def near(self, codes: Codes, k: int) -> Near:
        """The same with their codes."""
        near = self.centres.nearest(codes, FAR_PROBES)[0].tolist()
        found = self.looked_through(near[:PROBES], codes, k)
        if len(found[1]) and found[1][0] >= NEAR:
            return found
        return self.looked_through(near, codes, k)

    def looked_through(self, places: list[int], codes: Codes, k: int) -> Near:
        """The `k` nearest in some cells."""
        flats = [flat for flat in map(self.flats.__getitem__, places) if len(flat)]
        ends = list(accumulate(map(len, flats), initial=0))
        products, asked = np.empty(ends[-1]), codes[None]
        for flat, (start, end) in zip(flats, pairwise(ends), strict=True):
            numkong.dot(asked, flat.matrix(), out=products[start:end])
        lengths = np.frombuffer(b"".join(flat.norms for flat in flats), np.float32)
        rows, cosines = best((products / (lengths * np.float32(norm(codes)))).astype(np.float32), k)
        numbers, size = np.empty(len(rows), np.int64), self.num_dimensions
        found = np.empty((len(rows), size), np.int8)
        for at, row in enumerate(rows.tolist()):
            cell = bisect_right(ends, row) - 1
            flat, place = flats[cell], row - ends[cell]
            numbers[at] = flat.numbers[place]
            found[at] = np.frombuffer(flat.codes, np.int8, size, place * size)
        return numbers, cosines, found

    def codes_of(self, numbers: list[int]) -> Codes:
        """Codes of keys that are in it."""
        size, codes = self.num_dimensions, np.empty((len(numbers), self.num_dimensions), np.int8)
        for at, number in enumerate(numbers):
            flat = self.flats[self.places[bisect_left(self.numbers, number)]]
            codes[at] = np.frombuffer(flat.codes, np.int8, size, bisect_left(flat.numbers, number) * size)
        return codes

    def remove(self, numbers: Numbers) -> None:
        """Take keys out, those that are there."""
        mine, places = np.frombuffer(self.numbers, np.int64), np.frombuffer(self.places, np.uint16)
        gone = np.isin(mine, numbers)
        for place in np.unique(places[gone]).tolist():
            self.flats[place].remove(numbers)
        if gone.any():
            self.numbers, self.places = array("q", mine[~gone].tobytes()), array("H", places[~gone].tobytes())

    def above(self, number: int) -> tuple[Numbers, Codes]:
        """Copies of the numbers above one, and of their codes: for another thread."""
        parts = [flat.above(number) for flat in self.flats]
        numbers = np.concatenate([part[0] for part in parts])
        order = np.argsort(numbers)
        return numbers[order], np.concatenate([part[1] for part in parts])[order]


def split(numbers: Numbers, codes: Codes) -> Cells:
    """Put keys into cells; their numbers ascend. Takes about a second for 100,000."""
    num_cells = math.ceil(min(MAX_CELLS, CELLS_A_ROOT * math.sqrt(len(numbers)), len(numbers) / KEYS_A_CELL))
    centres = packed_all(learned(codes, num_cells))
    places = [nearest_of(unpacked(centres), unpacked(codes[each])) for each in slices(len(codes))]
    filled, cells = np.unique(np.concatenate(places), return_inverse=True)
    order = np.argsort(cells, kind="stable")
    return Cells(numbers[order], codes[order], centres[filled], np.bincount(cells))


def learned(codes: Codes, num_cells: int) -> Vector:
    """Centres of length 1, by k-means on a sample: always the same for the same codes."""
    chance = np.random.default_rng(len(codes))
    chosen = chance.permutation(len(codes))[: SAMPLE_A_CELL * num_cells]
    sample = unpacked(codes[np.sort(chosen)])
    centres = sample[chance.permutation(len(sample))[:num_cells]]
    for _ in range(ROUNDS):
        places = np.concatenate([nearest_of(centres, sample[each]) for each in slices(len(sample))])
        filled, starts = np.unique(np.sort(places), return_index=True)
        centres[filled] = np.add.reduceat(sample[np.argsort(places, kind="stable")], starts, axis=0)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return centres


def nearest_of(centres: Vector, vectors: Vector) -> NDArray[np.int64]:
    """The nearest centre of each vector."""
    places: NDArray[np.int64] = (vectors @ centres.T).argmax(axis=1)
    return places


def packed_all(vectors: Vector) -> Codes:
    """Codes of many vectors."""
    return np.stack([packed(each) for each in vectors])


def slices(num_rows: int) -> Iterator[slice]:
    """Rows, some thousand at once: products with all centres stay small."""
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, num_rows, ROWS_AT_ONCE))
