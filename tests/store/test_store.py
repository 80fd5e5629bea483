"""Stores: bounded, expiring, and never a lie, whatever happens to the file."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import StoreError
from stepwell.store.memory import ENTRY_BYTES, Memory
from stepwell.store.sqlite import Sqlite

LATER = 4e9


def opened(path: Path, **more: int) -> Sqlite:
    return Sqlite(path, **{"limit_bytes": 10_000_000, "flush_ms": 5, **more})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Sqlite]:
    store = opened(tmp_path / "cache.db")
    yield store
    store.close()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2000)), max_size=200), st.integers(5_000, 60_000))
def test_memory_never_passes_its_limit_and_gives_back_what_it_holds(puts: list[tuple[int, int]], limit: int) -> None:
    memory: Memory[bytes] = Memory(limit)
    last: dict[int, bytes] = {}
    for number, size in puts:
        last[number] = os.urandom(4) + b"x" * size
        memory.put(b"%d" % number, last[number], LATER, size)
        assert memory.used_bytes <= limit
        assert memory.used_bytes == sum(held[2] for held in memory.held.values())
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


def test_what_is_put_is_there_at_once_after_the_flush_and_after_reopening(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache.db")
    for number in range(1200):
        store.put(b"%d" % number, b"v%d" % number, LATER)
    assert store.get(b"7") == (b"v7", LATER)
    wait(lambda: not store.waiting and not store.writing)
    assert store.get(b"7") == (b"v7", LATER)
    store.close()
    again = opened(tmp_path / "cache.db")
    assert all(again.get(b"%d" % number) == (b"v%d" % number, LATER) for number in range(1200))
    again.close()


def test_expired_is_gone(store: Sqlite) -> None:
    store.put(b"k", b"v", time.time() + 0.2)
    wait(lambda: store.get(b"k") is None)


def test_two_stores_see_each_others_values(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "cache.db"), opened(tmp_path / "cache.db")
    first.put(b"a", b"1", LATER)
    second.put(b"b", b"2", LATER)
    wait(lambda: second.get(b"a") == (b"1", LATER) and first.get(b"b") == (b"2", LATER))
    first.close()
    second.close()


def test_the_file_stays_near_its_limit(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache.db", limit_bytes=300_000, flush_ms=1)
    for number in range(4000):
        store.put(b"%d" % number, os.urandom(500), LATER + number)
        if number % 20 == 0:
            wait(lambda: not store.waiting)
    store.close()
    assert (tmp_path / "cache.db").stat().st_size < 1_500_000


def test_a_value_under_a_wrong_checksum_is_a_miss(store: Sqlite, tmp_path: Path) -> None:
    store.put(b"k", b"value", LATER)
    wait(lambda: not store.waiting and not store.writing)
    with closing(sqlite3.connect(tmp_path / "cache.db")) as database, database:
        database.execute("UPDATE kept SET value = ?", (b"walue",))
    assert store.get(b"k") is None


def test_rubbish_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"rubbish" * 3000)
    store = opened(path)
    store.put(b"k", b"v", LATER)
    store.close()
    assert "begun anew" in caplog.text
    assert (tmp_path / "cache.db.damaged").exists()
    again = opened(path)
    assert again.get(b"k") == (b"v", LATER)
    again.close()


def test_pages_damaged_in_the_middle_are_misses_or_a_new_file_never_wrong_answers(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    store = opened(path)
    for number in range(2000):
        store.put(b"%d" % number, b"value %d" % number * 20, LATER)
    store.close()
    with path.open("r+b") as file:
        for page in range(3, 60, 2):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    store = opened(path)
    for number in range(2000):
        assert store.get(b"%d" % number) in ((b"value %d" % number * 20, LATER), None)
    store.put(b"new", b"v", LATER)
    wait(lambda: not store.waiting and not store.writing)
    store.close()
    again = opened(path)
    assert again.get(b"new") == (b"v", LATER)
    again.close()


def test_a_file_that_takes_nothing_more_costs_only_the_new_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    store = opened(path)
    store.put(b"old", b"v", LATER)
    wait(lambda: not store.waiting and not store.writing)
    with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as blocker, caplog.at_level(logging.WARNING):
        blocker.execute("PRAGMA max_page_count")
        blocker.execute("BEGIN IMMEDIATE")
        store.put(b"new", b"v", LATER)
        wait(lambda: "takes nothing" in caplog.text, 15)
        assert store.get(b"old") == (b"v", LATER)
        blocker.execute("ROLLBACK")
    store.put(b"newer", b"v", LATER)
    wait(lambda: not store.waiting and not store.writing)
    assert store.get(b"newer") == (b"v", LATER)
    store.close()


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"choose another cache\.path"):
        opened(tmp_path / "file" / "cache.db")


def wait(check: object, seconds: float = 10) -> None:
    end_s = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end_s
        time.sleep(0.01)
