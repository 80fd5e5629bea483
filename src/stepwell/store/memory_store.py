"""A Store that ends with its process: values, leases and logs in memory."""

from __future__ import annotations

from bisect import bisect_right
from itertools import count, islice

from stepwell.store.clock import Clock
from stepwell.store.memory import ENTRY_BYTES, Memory

MANY_LEASES = 10_000
"""From here on, leases that are over are forgotten."""


class MemoryStore:
    """A Store. Values and each log are bounded by `limit_bytes`: the oldest go first."""

    name = "memory"

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.clock = limit_bytes, Clock()
        self.values: Memory[tuple[bytes, float]] = Memory(limit_bytes)
        self.leases: dict[bytes, tuple[int, float]] = {}
        self.fences = count(1)
        self.logs: dict[bytes, Log] = {}

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        """Value and expiry, or None."""
        found = self.values.get(key)
        return (found[0], found[1] - self.clock.ahead_s()) if found is not None else None

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        """Keep a value, unless its fence is not that of the last lease on `key`."""
        if fence and self.leases.get(key, (0, 0.0))[0] != fence:
            return
        self.values.put(key, (value, expires_s + self.clock.ahead_s()), expires_s, len(value))

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
