"""Near duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive Datasets).

Rows that share a band of their signatures are candidates; the true Jaccard similarity of their n-grams decides. So what
is thrown away is a near duplicate for certain, and bands only cost recall: 99.5 % of the pairs at the threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.synth.ngrams import MULTIPLIER, Grams, Hashes, Hashing, grams

NUM_HASHES = 128
"""Length of a signature."""
RECALL = 0.995
SEED = 1997
CHUNK_ROWS = 4096
"""Rows whose signatures are made at once: their arrays stay in the processor's cache."""


class Bands(Struct, frozen=True):
    """A signature cut into `num` bands of `rows` hashes."""

    num: int
    rows: int


class Twin(Struct, frozen=True):
    """The earlier row that a row is nearly the same as, and how similar the two are (0 to 1)."""

    of: int
    similarity: float


def twins(texts: Sequence[str], *, threshold: float = 0.8, n: int = 5) -> dict[int, Twin]:
    """Each text that is a near duplicate of an earlier one that stays; the others stay.

    Similarity is Jaccard's, of the sets of n words in a row; a text of fewer words is one such set.
    """
    hashing = Hashing()
    parts = [texts[start : start + CHUNK_ROWS] for start in range(0, len(texts), CHUNK_ROWS)]
    shingles = [grams(hashing.words(part), n) for part in parts]
    if not shingles:
        return {}
    cut = cut_for(threshold)
    keys = np.concatenate([keys_of(part, cut) for part in shingles])
    return deaths(keys, Sets(shingles), threshold)


def cut_for(threshold: float) -> Bands:
    """The longest bands with which a pair at the threshold still shares one, with chance RECALL."""
    cuts = [Bands(NUM_HASHES // rows, rows) for rows in range(1, NUM_HASHES + 1)]
    return max(
        (cut for cut in cuts if 1 - (1 - threshold**cut.rows) ** cut.num >= RECALL),
        key=lambda cut: cut.rows,
        default=cuts[0],
    )


class Sets:
    """The n-grams of each row as a set, made when it is first wanted."""

    def __init__(self, shingles: Sequence[Grams]) -> None:
        self.shingles = shingles
        self.made: dict[int, frozenset[int]] = {}

    def __getitem__(self, row: int) -> frozenset[int]:
        if row not in self.made:
            part, at = self.shingles[row // CHUNK_ROWS], row % CHUNK_ROWS
            self.made[row] = frozenset(part.hashes[part.starts[at] : part.starts[at + 1]].tolist())
        return self.made[row]


def keys_of(shingles: Grams, cut: Bands) -> Hashes:
    """Each row's bands as numbers, shape (rows, bands): two rows share one with chance similarity^rows."""
    chance = np.random.default_rng(SEED)
    odd = chance.integers(0, 2**32, cut.num * cut.rows, np.uint32) | np.uint32(1)
    shift = chance.integers(0, 2**32, cut.num * cut.rows, np.uint32)
    hashes = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
    keys = np.zeros((cut.num, len(shingles.starts) - 1), np.uint64)
    for place in range(cut.num * cut.rows):
        least = np.minimum.reduceat(hashes * odd[place] + shift[place], shingles.starts[:-1])
        keys[place // cut.rows] *= MULTIPLIER
        keys[place // cut.rows] += least
    return np.ascontiguousarray(keys.T)


def deaths(keys: Hashes, sets: Sets, threshold: float) -> dict[int, Twin]:
    """In order of the rows: who shares a band with a row that stays, and is similar enough, does not stay."""
    shared = shared_with_others(keys)
    staying: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    found: dict[int, Twin] = {}
    for row in np.flatnonzero(shared.any(axis=1)).tolist():
        mine = [(band, int(keys[row, band])) for band in np.flatnonzero(shared[row]).tolist()]
        twin = likest(row, {other for key in mine for other in staying[key]}, sets)
        if twin is not None and twin.similarity >= threshold:
            found[row] = twin
        else:
            for key in mine:
                staying[key].append(row)
    return found


def shared_with_others(keys: Hashes) -> NDArray[np.bool_]:
    """Which bands of which rows another row has, too."""
    shared = np.zeros(keys.shape, np.bool_)
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band])
        same = np.flatnonzero(np.diff(keys[order, band]) == 0)
        shared[order[same], band] = shared[order[same + 1], band] = True
    return shared


def likest(row: int, others: set[int], sets: Sets) -> Twin | None:
    """The most similar of some rows."""
    mine = sets[row]
    best: Twin | None = None
    for other in others:
        theirs = sets[other]
        both = len(mine & theirs)
        similarity = both / (len(mine) + len(theirs) - both)
        if best is None or (similarity, -other) > (best.similarity, -best.of):
            best = Twin(other, similarity)
    return best
