"""Which kept questions are near a new one: vectors by partition, small ones looked through, large ones as a graph.

A key is called by its position in the log of keys, so every process and every start call it the same. Numbers only
ascend. The event loop's thread is the only one that changes an index; a graph is built in another, from a copy.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import Thread
from time import time

import numpy as np
from numpy.typing import NDArray

from stepwell.cache.flat import Flat, Found
from stepwell.cache.graph import Graph, restored
from stepwell.cache.keys import NAME_BYTES, Key, Keys
from stepwell.cache.rows import KeyAdded
from stepwell.cache.vectors import Codes, Vector, packed, unpacked, unsound

log = logging.getLogger(__name__)

FLAT_LIMIT = 8192
"""Keys of a partition from which a graph is quicker by enough to be worth building."""
NOTHING: Found = (np.empty(0, np.int64), np.empty(0, np.float32))


class Index:
    """All keys of one process."""

    def __init__(self, saved: Mapping[bytes, bytes] | None = None, *, flat_limit: int = FLAT_LIMIT) -> None:
        """Begin empty; `saved` has the links that a snapshot kept of large partitions, by their names."""
        self.saved = {} if saved is None else dict(saved)
        self.flat_limit = flat_limit
        self.keys = Keys()
        self.names: list[bytes] = []
        self.places: dict[bytes, int] = {}
        self.parts: list[Flat | Graph] = []
        self.growing: dict[int, Growth] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, number: int, row: KeyAdded) -> str:
        """Add a key of the log: empty, or why it was refused. An earlier key of the same question gives way."""
        codes = np.frombuffer(row.vector, np.int8)
        place = self.places.get(row.partition, -1)
        wrong = self.wrong(number, row, codes, place)
        if wrong:
            return wrong
        if place < 0:
            place = self.places[row.partition] = len(self.parts)
            self.names.append(row.partition)
            self.parts.append(Flat(codes.size))
        self.keys.add(Key(number, place, row.exact, row.answer, row.text, row.expires_s))
        self.parts[place].add(number, codes)
        return ""

    def wrong(self, number: int, row: KeyAdded, codes: Codes, place: int) -> str:
        """Why a row cannot be added: empty where it can."""
        if number <= self.keys.last():
            return f"key {number} is not above {self.keys.last()}, the last one"
        if len(row.exact) != NAME_BYTES or len(row.answer) != NAME_BYTES:
            return f"key {number} has a digest that is not of {NAME_BYTES} bytes"
        return unsound(codes.astype(np.float32), self.parts[place].num_dimensions if place >= 0 else 0)

    def nearest(self, partition: bytes, vector: Vector, k: int = 16) -> Found:
        """Numbers and cosines of the `k` nearest keys of a partition, nearest first; none for an unsound vector."""
        place = self.places.get(partition, -1)
        if place < 0:
            return NOTHING
        self.adopt(place)
        part = self.parts[place]
        if unsound(vector, part.num_dimensions) or not len(part):
            return NOTHING
        return part.nearest(packed(vector), k)

    def get(self, number: int) -> Key | None:
        """What belongs to a key; None where it is gone or has expired."""
        key = self.keys.get(number)
        return key if key is not None and key.expires_s > time() else None

    def vectors(self, partition: bytes, numbers: NDArray[np.int64]) -> Vector:
        """Vectors of length 1 of keys that `nearest` found, shape (keys, dimensions)."""
        return unpacked(self.parts[self.places[partition]].codes_of(numbers))

    def partitions(self) -> list[bytes]:
        """Names of all partitions."""
        return list(self.names)

    def num_keys(self, partition: bytes) -> int:
        """How many keys a partition has."""
        place = self.places.get(partition, -1)
        return 0 if place < 0 else len(self.parts[place])

    def whole(self, partition: bytes) -> tuple[Vector, list[bytes]]:
        """Vectors (keys, dimensions) and answers of every key of a partition, the oldest first."""
        found = [key for key in map(self.keys.get, self.keys.within(self.places[partition])) if key is not None]
        numbers = np.array([key.number for key in found], np.int64)
        return unpacked(self.parts[self.places[partition]].codes_of(numbers)), [key.answer for key in found]

    def remove(self, number: int) -> None:
        """Forget a key."""
        row = self.keys.at(number)
        if row < 0:
            return
        place = self.keys.partitions[row]
        self.adopt(place)
        self.parts[place].remove(number)
        self.keys.remove(number)
        if place in self.growing:
            self.growing[place].removed.append(number)

    def forget(self, answer: bytes) -> int:
        """Forget every key of an answer; say how many there were."""
        return self.remove_all(self.keys.of(answer))

    def sweep(self, now_s: float) -> int:
        """Forget every key whose time is over; say how many there were."""
        return self.remove_all(self.keys.expired(now_s))

    def remove_all(self, numbers: list[int]) -> int:
        """Forget some keys."""
        for number in numbers:
            self.remove(number)
        self.keys.pack()
        return len(numbers)

    # --- from flat to graph

    def grow(self) -> None:
        """Begin a graph wherever a partition has become too large to look through; take those that are ready."""
        for place, part in enumerate(self.parts):
            if isinstance(part, Flat) and len(part) > self.flat_limit and place not in self.growing:
                self.growing[place] = Growth(part, self.saved.pop(self.names[place], b""))
            self.adopt(place)

    def adopt(self, place: int) -> None:
        """Put a graph that is ready in its partition's place, with what was added and removed meanwhile."""
        growth = self.growing.get(place)
        if growth is None or growth.thread.is_alive():
            return
        flat = self.parts[place]
        if growth.graph is None or not isinstance(flat, Flat):
            return  # it failed, and would again
        del self.growing[place]
        for number in growth.removed:
            growth.graph.remove(number)
        growth.graph.add_many(*flat.above(growth.last))
        self.parts[place] = growth.graph

    def links(self) -> dict[bytes, bytes]:
        """The links of every graph, for a snapshot: a copy."""
        parts = zip(self.names, self.parts, strict=True)
        return {name: part.links() for name, part in parts if isinstance(part, Graph)}


class Growth:
    """A graph being built in a thread, from a copy of a flat partition and, where a snapshot has them, its links."""

    def __init__(self, flat: Flat, links: bytes) -> None:
        self.numbers, self.codes = flat.above(-1)
        self.last = int(self.numbers[-1])
        self.removed: list[int] = []
        self.graph: Graph | None = None
        self.thread = Thread(target=self.build, args=(links,), name="index", daemon=True)
        self.thread.start()

    def build(self, links: bytes) -> None:
        """Build it; where that fails the partition stays flat, which is right but slower."""
        try:
            self.graph = self.read(links) or self.anew()
        except Exception:
            log.exception("a graph of %d keys could not be built", len(self.numbers))

    def read(self, links: bytes) -> Graph | None:
        """The graph of a snapshot, where there is one that fits."""
        if not links:
            return None
        try:
            return restored(links, self.numbers, self.codes)
        except ValueError as error:
            log.warning("the snapshot's graph does not fit its keys (%s): built anew", error)
            return None

    def anew(self) -> Graph:
        """A graph of all keys."""
        graph = Graph(self.codes.shape[1])
        graph.add_many(self.numbers, self.codes)
        return graph
