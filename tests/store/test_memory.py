"""Memory: bounded, expiring, the longest unused go first."""

from __future__ import annotations

import os
import time

from hypothesis import given
from hypothesis import strategies as st

from stepwell.store.memory import ENTRY_BYTES, Memory
from stepwell.store.memory_store import MemoryStore

LATER = 4e9


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2000)), max_size=200), st.integers(5_000, 60_000))
def test_memory_never_passes_its_limit_and_gives_back_what_it_holds(puts: list[tuple[int, int]], limit: int) -> None:
    memory: Memory[bytes] = Memory(limit)
    last: dict[int, bytes] = {}
    for number, size in puts:
        last[number] = os.urandom(4) + b"x" * size
        memory.put(b"%d" % number, last[number], LATER, size)
        assert memory.used_bytes <= limit
        assert memory.used_bytes == sum(held[2].num_bytes for held in memory.held.values())
    for number, value in last.items():
        assert memory.get(b"%d" % number) in (value, None)


def test_memory_lets_the_longest_unused_go_first() -> None:
    memory: Memory[str] = Memory(20 * (ENTRY_BYTES + 1))
    for number in range(20):
        memory.put(b"%d" % number, "v", LATER, 1)
    memory.get(b"0")
    memory.put(b"20", "v", LATER, 1)
    assert memory.get(b"0") == "v"
    assert memory.get(b"1") is None


def test_memory_expires() -> None:
    memory: Memory[str] = Memory(100_000)
    memory.put(b"k", "v", time.time() - 1, 1)
    assert memory.get(b"k") is None
    assert len(memory) == 0


async def test_a_log_in_memory_stays_within_its_limit_and_loses_the_oldest_first() -> None:
    store = MemoryStore(100 * (ENTRY_BYTES + 10))
    for number in range(1000):
        await store.append(b"log", b"%010d" % number, LATER)
        assert store.logs[b"log"].used_bytes <= store.limit_bytes
    rows = await store.since(b"log", 0, 1000)
    assert [int(row) for _, row in rows] == list(range(1000 - len(rows), 1000))
    assert len(rows) >= 85
