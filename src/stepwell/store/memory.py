"""Least recently used values in memory, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from time import time
from typing import Generic, TypeVar

Value = TypeVar("Value")

ENTRY_BYTES = 400
"""What one entry costs beside its value: key, tuple, links of the ordered dictionary."""


class Memory(Generic[Value]):
    """Values by key, each with its expiry (seconds since 1970); the longest unused go first when it is full."""

    __slots__ = ("held", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.held: OrderedDict[bytes, tuple[Value, float, int]] = OrderedDict()
        self.limit_bytes, self.used_bytes = limit_bytes, 0

    def get(self, key: bytes) -> Value | None:
        """The value, or None where there is none or it has expired."""
        entry = self.held.get(key)
        if entry is None:
            return None
        if entry[1] <= time():
            self.drop(key)
            return None
        self.held.move_to_end(key)
        return entry[0]

    def put(self, key: bytes, value: Value, expires_s: float, num_bytes: int) -> None:
        """Keep a value of `num_bytes`; one that would fill more than an eighth of the room is not kept."""
        self.drop(key)
        num_bytes += ENTRY_BYTES
        if num_bytes > self.limit_bytes // 8:
            return
        self.held[key] = (value, expires_s, num_bytes)
        self.used_bytes += num_bytes
        while self.used_bytes > self.limit_bytes:
            _, (_, _, freed_bytes) = self.held.popitem(last=False)
            self.used_bytes -= freed_bytes

    def drop(self, key: bytes) -> None:
        """Forget a value, if it is there."""
        entry = self.held.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry[2]

    def __len__(self) -> int:
        return len(self.held)
