"""Values in memory, bounded in bytes; and a Store made of them, for one process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import count, islice
from typing import Generic, TypeVar

from stepwell.store.clock import Clock
from stepwell.store.order import Begin, Weight, lru

Value = TypeVar("Value")

ENTRY_BYTES = 400
"""What one entry costs beside its value: key, tuple, links of the ordered dictionary."""
MANY_LEASES = 10_000
"""From here on, leases that are over are forgotten."""


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
        if entry[1] <= self.clock.now_s():
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


class MemoryStore:
    """A Store that ends with its process. Values and each log are bounded by `limit_bytes`: the oldest go first."""

    name = "memory"

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.clock = limit_bytes, Clock()
        self.values: Memory[tuple[bytes, float]] = Memory(limit_bytes)
        self.leases: dict[bytes, tuple[int, float]] = {}
        self.fences = count(1)
        self.logs: dict[bytes, Log] = {}

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        """Value and expiry, or None."""
        return self.values.get(key)

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        """Keep a value, unless its fence is not that of the last lease on `key`."""
        if fence and self.leases.get(key, (0, 0.0))[0] != fence:
            return
        self.values.put(key, (value, expires_s), expires_s, len(value))

    async def drop(self, key: bytes) -> None:
        """Forget a value."""
        self.values.drop(key)

    async def lease(self, key: bytes, ttl_s: float) -> int | None:
        """A fencing number, or None while somebody else holds one."""
        now_s = self.clock.now_s()
        if self.leases.get(key, (0, 0.0))[1] > now_s:
            return None
        if len(self.leases) > MANY_LEASES:
            self.leases = {key: held for key, held in self.leases.items() if held[1] > now_s}
        fence = next(self.fences)
        self.leases[key] = (fence, now_s + ttl_s)
        return fence

    async def release(self, key: bytes, fence: int) -> None:
        """End a lease early; its number stays the last one."""
        if self.leases.get(key, (0, 0.0))[0] == fence:
            self.leases[key] = (fence, 0.0)

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        """Add a row to a log."""
        expires_s += self.clock.ahead_s()
        self.logs.setdefault(log, Log()).append(row, expires_s, self.clock.now_s(), self.limit_bytes)

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        """Rows behind `position`."""
        held = self.logs.get(log)
        return held.since(position, limit, self.clock.now_s()) if held else []

    async def close(self) -> None:
        """Nothing to give back."""


class Log:
    """Rows in the order they came; those that expired are cut off at the front."""

    __slots__ = ("last", "rows", "used_bytes")

    def __init__(self) -> None:
        self.rows: list[tuple[int, bytes, float]] = []
        self.last = self.used_bytes = 0

    def append(self, row: bytes, expires_s: float, now_s: float, limit_bytes: int) -> None:
        """Add a row; one in a hundred times, cut off what is over and what is too much."""
        self.last += 1
        self.rows.append((self.last, row, expires_s))
        self.used_bytes += len(row) + ENTRY_BYTES
        if self.used_bytes > limit_bytes:
            self.cut(now_s, self.used_bytes - limit_bytes * 9 // 10)
        elif self.last % 100 == 0:
            self.cut(now_s, 0)

    def cut(self, now_s: float, too_many_bytes: int) -> None:
        """Forget rows at the front: those that expired, and at least so many bytes."""
        freed_bytes = num_rows = 0
        for _, row, expires_s in self.rows:
            if expires_s > now_s and freed_bytes >= too_many_bytes:
                break
            freed_bytes += len(row) + ENTRY_BYTES
            num_rows += 1
        del self.rows[:num_rows]
        self.used_bytes -= freed_bytes

    def since(self, position: int, limit: int, now_s: float) -> list[tuple[int, bytes]]:
        """Up to `limit` rows behind `position` that are not over."""
        start = bisect_right(self.rows, position, key=lambda row: row[0])
        living = (row[:2] for row in map(self.rows.__getitem__, range(start, len(self.rows))) if row[2] > now_s)
        return list(islice(living, limit))
