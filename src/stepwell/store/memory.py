"""Values in memory, bounded in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from stepwell.store.clock import Clock
from stepwell.store.order import Begin, Weight, lru

Value = TypeVar("Value")

ENTRY_BYTES = 400
"""What one entry costs beside its value: key, tuple, links of the ordered dictionary."""


class Memory(Generic[Value]):
    """Values by key, each with its expiry (seconds since 1970); `begin` says which goes first when it is full."""

    __slots__ = ("below", "clock", "held", "limit_bytes", "note", "order", "touch", "used_bytes")

    def __init__(self, limit_bytes: int, begin: Begin = lru) -> None:
        self.held: dict[bytes, tuple[Value, float, Weight]] = {}
        self.limit_bytes, self.used_bytes = limit_bytes, 0
        self.clock = Clock()
        self.order = begin(limit_bytes)
        self.touch = self.order.touch
        self.below = 0
        """Of keys whose last byte is less, hits and puts are noted."""
        self.note: Callable[[bytes, Weight], int] = unnoted
        """Told of them; returns the next bound."""

    def get(self, key: bytes) -> Value | None:
        """The value, or None where there is none or it has expired."""
        entry = self.held.get(key)
        if entry is None:
            return None
        if not entry[1] > self.clock.now_s():  # a time that is no number is over, too
            self.drop(key)
            return None
        self.touch(key)
        if self.below and key[-1] < self.below:
            self.below = self.note(key, entry[2])
        return entry[0]

    def put(
        self,
        key: bytes,
        value: Value,
        expires_s: float,
        num_bytes: int,
        *,
        usd: float = 0.0,
        principal: bytes = b"",
        partition: bytes = b"",
    ) -> None:
        """Keep a value of `num_bytes`; one that would fill more than an eighth of the room is not kept."""
        self.drop(key)
        weight = Weight(num_bytes + ENTRY_BYTES, usd, principal, partition)
        if weight.num_bytes > self.limit_bytes // 8:
            return
        self.held[key] = (value, expires_s + self.clock.ahead_s(), weight)
        self.used_bytes += weight.num_bytes
        self.order.add(key, weight)
        if self.below and key[-1] < self.below:
            self.below = self.note(key, weight)
        while self.used_bytes > self.limit_bytes:
            self.used_bytes -= self.held.pop(self.order.victim())[2].num_bytes

    def drop(self, key: bytes) -> None:
        """Forget a value, if it is there."""
        entry = self.held.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry[2].num_bytes
            self.order.drop(key)

    def reorder(self, begin: Begin) -> None:
        """Go by another order from now on; what is held stays."""
        self.order = begin(self.limit_bytes)
        self.touch = self.order.touch
        for key, (_, _, weight) in self.held.items():
            self.order.add(key, weight)

    def watch(self, note: Callable[[bytes, Weight], int], below: int) -> None:
        """From now on, tell `note` of keys whose last byte is below a bound."""
        self.note, self.below = note, below

    def __len__(self) -> int:
        return len(self.held)


def unnoted(_key: bytes, _weight: Weight) -> int:
    """Nobody is told."""
    return 0
