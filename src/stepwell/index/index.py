"""Which kept questions are near a new one: vectors by partition, a large one in cells.

A key is called by its position in the log of keys, so every process and every start call it the same. Numbers only
ascend. The event loop's thread is the only one that changes an index; cells are made in another, from a copy.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from threading import Thread
from time import time

import numpy as np

from stepwell.index.cells import Cells, split
from stepwell.index.flat import Cosines, Flat, Found, Numbers
from stepwell.index.keys import NAME_BYTES, Key, Keys
from stepwell.index.rows import KeyAdded
from stepwell.index.vectors import Codes, Vector, packed, unpacked, unsound

log = logging.getLogger(__name__)

FLAT_LIMIT = 4096
"""Keys of a partition from which cells are quicker by enough to be worth making."""
GROWN = 4
"""Cells are made anew when there are so many times the keys they were made for."""
NOTHING: Found = (np.empty(0, np.int64), np.empty(0, np.float32))
NO_PART = Flat(0)
"""Stands where a place is free."""


class Index:
    """All keys of one process."""

    def __init__(self, *, flat_limit: int = FLAT_LIMIT) -> None:
        self.flat_limit = flat_limit
        self.keys = Keys()
        self.names: list[bytes] = []
        """By place; empty where the place is free."""
        self.places: dict[bytes, int] = {}
        self.parts: list[Flat | Cells] = []
        self.free: list[int] = []
        """Places whose partition is gone; the next new one takes one of them."""
        self.growing: dict[int, Growth] = {}
        self.larger: set[int] = set()
        """Places that `grow` has not looked at since something was added there."""
        self.news: set[bytes] = set()
        """Partitions that `changed` has not told since something was added to them, or they went."""

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, rows: Sequence[tuple[int, KeyAdded]]) -> list[str]:
        """Add keys of the log, numbers ascending; say why some were refused."""
        known, kept, places, refused = self.keys.last(), [], [], []
        for number, row in rows:
            wrong = self.wrong(number, row, known)
            if wrong:
                refused.append(wrong)
            else:
                known = number
                kept.append((number, row))
                places.append(self.place_of(row))
        self.keys.add(kept, places)
        for place in set(places):
            mine = [each for each, its in zip(kept, places, strict=True) if its == place]
            codes = np.frombuffer(b"".join(row.vector for _, row in mine), np.int8).reshape(len(mine), -1)
            self.parts[place].add(np.array([number for number, _ in mine], np.int64), codes)
            self.touch(place)
        return refused

    def touch(self, place: int) -> None:
        """Remember that something was added to a partition."""
        self.larger.add(place)
        self.news.add(self.names[place])

    def wrong(self, number: int, row: KeyAdded, known: int) -> str:
        """Why a row cannot be added: empty where it can."""
        if number <= known:
            return f"key {number} is not above {known}, the last one"
        if not row.partition:
            return f"key {number} names no partition"
        if len(row.answer) != NAME_BYTES:
            return f"key {number} names an answer with {len(row.answer)} bytes instead of {NAME_BYTES}"
        place = self.places.get(row.partition, -1)
        size = self.parts[place].num_dimensions if place >= 0 else len(row.vector)
        if not size or len(row.vector) != size or not any(row.vector):
            return f"key {number} has a vector of {len(row.vector)} bytes instead of {size}, or one that is zero"
        return ""

    def place_of(self, row: KeyAdded) -> int:
        """Where a row's partition is, which may be new."""
        place = self.places.get(row.partition, -1)
        return self.occupy(row.partition, Flat(len(row.vector))) if place < 0 else place

    def occupy(self, name: bytes, part: Flat | Cells) -> int:
        """Give a new partition a place."""
        if self.free:
            place = self.free.pop()
            self.names[place], self.parts[place] = name, part
        else:
            place = len(self.parts)
            self.names.append(name)
            self.parts.append(part)
        self.places[name] = place
        return place

    def vacate(self, place: int) -> None:
        """Let a partition go that has no keys any more; only rows that are gone still name its place."""
        name, self.names[place], self.parts[place] = self.names[place], b"", NO_PART
        del self.places[name]
        self.growing.pop(place, None)
        self.larger.discard(place)
        self.free.append(place)
        self.news.add(name)

    def nearest(self, partition: bytes, vector: Vector, k: int = 16) -> Found:
        """Numbers and cosines of the `k` nearest keys of a partition, nearest first; none for an unsound vector."""
        numbers, cosines, _ = self.near(partition, vector, k)
        return numbers, cosines

    def near(self, partition: bytes, vector: Vector, k: int) -> tuple[Numbers, Cosines, Vector]:
        """The same with their vectors, shape (keys, dimensions)."""
        place = self.places.get(partition, -1)
        if place < 0:
            return *NOTHING, np.empty((0, len(vector)), np.float32)
        self.adopt(place)
        part = self.parts[place]
        if unsound(vector, part.num_dimensions) or not len(part):
            return *NOTHING, np.empty((0, part.num_dimensions), np.float32)
        numbers, cosines, codes = part.near(packed(vector), k)
        return numbers, cosines, unpacked(codes)

    def get(self, number: int) -> Key | None:
        """What belongs to a key; None where it is gone or has expired."""
        key = self.keys.get(number)
        return key if key is not None and key.expires_s > time() else None

    def vectors(self, partition: bytes, numbers: Numbers) -> Vector:
        """Vectors of length 1 of keys that `nearest` found, shape (keys, dimensions)."""
        return unpacked(self.parts[self.places[partition]].codes_of(numbers.tolist()))

    def answers_of(self, numbers: Numbers) -> list[bytes]:
        """Answers of keys that `nearest` found."""
        return self.keys.answers_of(numbers)

    def text_of(self, number: int) -> str:
        """The wording of a key that `nearest` found."""
        key = self.keys.get(number)
        return "" if key is None else key.text

    def partitions(self) -> list[bytes]:
        """Names of all partitions."""
        return list(self.places)

    def changed(self) -> Iterator[bytes]:
        """Names of the partitions that have more keys than at the last call, or none any more; each is told once."""
        while self.news:
            yield self.news.pop()

    def num_keys(self, partition: bytes) -> int:
        """How many keys a partition has."""
        place = self.places.get(partition, -1)
        return 0 if place < 0 else len(self.parts[place])

    def newest(self, partition: bytes, most: int) -> tuple[Codes, list[bytes]]:
        """Copies of the codes (keys, dimensions) and answers of a partition's newest keys, the oldest first."""
        part = self.parts[self.places[partition]]
        numbers, codes = part.above(part.numbers[-most] - 1 if len(part) > most else -1)
        return codes, self.keys.answers_of(numbers)

    def rows_of(self, partition: bytes, answer: bytes) -> list[KeyAdded]:
        """The wordings that lead to an answer, as the log could say them again."""
        place, numbers = self.places.get(partition, -1), self.keys.of(answer)
        if place < 0 or not numbers:
            return []
        codes = self.parts[place].codes_of(numbers)
        keys = [key for key in map(self.keys.get, numbers) if key is not None]
        return [
            KeyAdded(
                sha256(key.text.encode()).digest(), partition, answer, key.text, one.tobytes(), "", b"", key.expires_s
            )
            for key, one in zip(keys, codes, strict=True)
        ]

    def forget(self, answer: bytes) -> int:
        """Forget every key of an answer; say how many there were."""
        return self.remove(self.keys.of(answer))

    def sweep(self, now_s: float) -> int:
        """Forget every key whose time is over; say how many there were."""
        return self.remove(self.keys.expired(now_s))

    def remove(self, numbers: list[int]) -> int:
        """Forget some keys; say how many of them there were."""
        there = [(number, row) for number in set(numbers) if (row := self.keys.at(number)) >= 0]
        places: dict[int, list[int]] = {}
        for number, row in there:
            places.setdefault(self.keys.partitions[row], []).append(number)
            self.keys.remove(number)
        for place, mine in places.items():
            self.shrink(place, mine)
        self.keys.pack()
        return len(there)

    def shrink(self, place: int, numbers: list[int]) -> None:
        """Take keys out of a partition; with its last one the partition goes."""
        self.adopt(place)
        if len(numbers) == len(self.parts[place]):
            self.vacate(place)
            return
        self.parts[place].remove(np.array(numbers, np.int64))
        if place in self.growing:
            self.growing[place].removed += numbers

    # --- from flat to cells

    def grow(self) -> None:
        """Begin to sort a partition into cells wherever it has become too large; take those that are ready."""
        for place in list(self.growing):
            self.adopt(place)
        for place in [each for each in self.larger if each not in self.growing]:
            self.larger.discard(place)
            part = self.parts[place]
            if len(part) > (self.flat_limit if isinstance(part, Flat) else GROWN * part.num_at_first):
                self.growing[place] = Growth(part)

    def adopt(self, place: int) -> None:
        """Put cells that are ready in their partition's place, with what was added and removed meanwhile."""
        growth = self.growing.get(place)
        if growth is None or growth.thread.is_alive() or growth.cells is None:
            return  # where it failed it would fail again
        del self.growing[place]
        growth.cells.remove(np.array(growth.removed, np.int64))
        growth.cells.add(*self.parts[place].above(growth.last))
        self.parts[place] = growth.cells
        self.larger.add(place)
        Thread(target=give_back, daemon=True).start()


class Growth:
    """Cells being made in a thread, from a copy of a partition."""

    def __init__(self, part: Flat | Cells) -> None:
        numbers, codes = part.above(-1)
        self.last = int(numbers[-1])
        self.removed: list[int] = []
        self.cells: Cells | None = None
        self.thread = Thread(target=self.make, args=(numbers, codes), name="index", daemon=True)
        self.thread.start()

    def make(self, numbers: Numbers, codes: Codes) -> None:
        """Make them; where that fails the partition stays as it is, which is right but slower."""
        try:
            self.cells = split(numbers, codes)
        except Exception:
            log.exception("%d keys could not be sorted into cells", len(numbers))


def give_back() -> None:
    """Let the C library return what sorting needed and left free (glibc's malloc_trim): else it keeps it for later."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
