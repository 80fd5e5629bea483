"""The SQLite file: what is put is there at once and stays, and it never lies, whatever happens to the file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from stepwell.errors import StoreError
from stepwell.store.sqlite import Sqlite

LATER = 4e9


def opened(path: Path, **more: int) -> Sqlite:
    return Sqlite(path, **{"limit_bytes": 10_000_000, "flush_ms": 5, **more})


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Sqlite]:
    store = opened(tmp_path / "cache.db")
    yield store
    await store.close()


async def test_what_is_put_is_there_at_once_after_the_flush_and_after_reopening(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache.db")
    for number in range(1200):
        await store.put(b"%d" % number, b"v%d" % number, LATER)
    assert await store.get(b"7") == (b"v7", LATER)
    await written(store)
    assert await store.get(b"7") == (b"v7", LATER)
    await store.close()
    again = opened(tmp_path / "cache.db")
    for number in range(1200):
        assert await again.get(b"%d" % number) == (b"v%d" % number, LATER)
    await again.close()


async def test_expired_is_gone(store: Sqlite) -> None:
    await store.put(b"k", b"v", time.time() + 0.2)
    assert await store.get(b"k") is not None
    await asyncio.sleep(0.25)
    assert await store.get(b"k") is None


async def test_two_stores_see_each_others_values(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "cache.db"), opened(tmp_path / "cache.db")
    await first.put(b"a", b"1", LATER)
    await second.put(b"b", b"2", LATER)
    await written(first)
    await written(second)
    assert await second.get(b"a") == (b"1", LATER)
    assert await first.get(b"b") == (b"2", LATER)
    await first.close()
    await second.close()


async def test_the_file_stays_near_its_limit(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache.db", limit_bytes=300_000, flush_ms=1)
    for number in range(4000):
        await store.put(b"%d" % number, os.urandom(500), LATER + number)
        if number % 20 == 0:
            await written(store)
    await store.close()
    assert (tmp_path / "cache.db").stat().st_size < 1_500_000


async def test_a_value_under_a_wrong_checksum_is_a_miss(store: Sqlite, tmp_path: Path) -> None:
    await store.put(b"k", b"value", LATER)
    await written(store)
    with closing(sqlite3.connect(tmp_path / "cache.db")) as database, database:
        database.execute("UPDATE kept SET value = ?", (b"walue",))
    assert await store.get(b"k") is None


async def test_rubbish_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"rubbish" * 3000)
    store = opened(path)
    await store.put(b"k", b"v", LATER)
    await store.close()
    assert "begun anew" in caplog.text
    assert (tmp_path / "cache.db.damaged").exists()
    again = opened(path)
    assert await again.get(b"k") == (b"v", LATER)
    await again.close()


async def test_pages_damaged_in_the_middle_are_misses_or_a_new_file_never_wrong_answers(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    store = opened(path)
    for number in range(2000):
        await store.put(b"%d" % number, b"value %d" % number * 20, LATER)
    await store.close()
    with path.open("r+b") as file:
        for page in range(3, 60, 2):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    store = opened(path)
    for number in range(2000):
        with suppress(StoreError):
            assert await store.get(b"%d" % number) in ((b"value %d" % number * 20, LATER), None)
    await store.put(b"new", b"v", LATER)
    await written(store)
    await store.close()
    again = opened(path)
    assert await again.get(b"new") == (b"v", LATER)
    await again.close()


async def test_a_file_that_others_lock_costs_only_the_new_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.db"
    monkeypatch.setattr("stepwell.store.sqlite_file.PATIENCE_S", 0.2)
    monkeypatch.setattr("stepwell.store.sqlite.PATIENCE_S", 0.1)
    store = opened(path)
    await store.put(b"old", b"v", LATER)
    await written(store)
    with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        await store.put(b"new", b"v", LATER)
        await store.append(b"log", b"row", LATER)
        with pytest.raises(StoreError, match=r"within 0\.1 s"):
            await store.lease(b"k", 9)
        await until(lambda: "takes nothing" in caplog.text, 15)
        assert await store.get(b"old") == (b"v", LATER)
        blocker.execute("ROLLBACK")
    await store.put(b"newer", b"v", LATER)
    await until(lambda: not store.waiting and not store.writing)
    assert await store.get(b"newer") == (b"v", LATER)
    assert [row for _, row in await store.since(b"log", 0, 9)] == [b"row"]
    await store.close()


async def test_a_full_disk_costs_the_new_values_and_delays_the_rows_of_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path / "cache.db")
    await store.put(b"old", b"v", LATER)
    fence = await store.lease(b"k", 60)
    assert fence is not None
    await written(store)
    (pages,) = store.database.execute("PRAGMA page_count").fetchone()
    store.database.execute(f"PRAGMA max_page_count = {pages}")
    await store.put(b"new", b"x" * 100_000, LATER)
    await store.append(b"log", b"row" * 10_000, LATER)
    await until(lambda: "full" in caplog.text)
    with pytest.raises(StoreError, match="full"):
        await store.put(b"k", b"x" * 100_000, LATER, fence)
    assert await store.get(b"new") is None
    assert await store.get(b"old") == (b"v", LATER)
    store.database.execute("PRAGMA max_page_count = 100000")
    await written(store)
    assert [row for _, row in await store.since(b"log", 0, 9)] == [b"row" * 10_000]
    await store.put(b"k", b"v", LATER, fence)
    assert await store.get(b"k") == (b"v", LATER)
    await store.close()


async def test_rows_that_wait_for_a_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.store.sqlite.MAX_WAITING_BYTES", 50_000)
    store = opened(tmp_path / "cache.db", flush_ms=60_000)
    for number in range(60):
        await store.put(b"%d" % number, b"x" * 1000, LATER)
    assert store.waiting.num_bytes == 50_000
    with pytest.raises(StoreError, match="no more rows can wait"):
        await store.append(b"log", b"x" * 1000, LATER)
    await store.close()


async def test_a_file_that_is_taken_away_is_begun_anew_and_goes_on_above(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    store, other = opened(path), opened(path)
    await store.append(b"log", b"one", LATER)
    fence = await store.lease(b"k", 60)
    await written(store)
    (before,) = await store.since(b"log", 0, 9)
    for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
        os.unlink(tmp_path / name)  # noqa: PTH108 - as an operator would
    for each in (store, other):
        await each.append(b"log", b"two", LATER)
        await written(each)
    for each in (store, other):
        assert [row for _, row in await each.since(b"log", before[0], 9)] == [b"two"] * 2
    again = await other.lease(b"k", 60)
    assert fence is not None
    assert again is not None
    assert again > fence
    await store.put(b"k", b"old", LATER, fence)
    assert await other.get(b"k") is None
    await store.close()
    await other.close()


async def test_damage_that_a_read_finds_is_repaired_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    store = opened(path)
    for number in range(3000):
        await store.put(b"%d" % number, os.urandom(500), LATER)
    await store.close()
    store = opened(path)
    damage(path)
    errors = []
    for number in range(3000):
        try:
            await store.get(b"%d" % number)
        except StoreError as error:
            errors.append(str(error))
    assert "cannot be read" in errors[0]
    await until(lambda: not store.suspect)
    await store.put(b"new", b"v", LATER)
    await written(store)
    assert await store.get(b"new") == (b"v", LATER)
    assert (tmp_path / "cache.db.damaged").exists()
    await store.close()


async def test_an_order_after_the_end_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache.db")
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.lease(b"k", 1)


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"choose another cache\.path"):
        opened(tmp_path / "file" / "cache.db")


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)


async def written(store: Sqlite) -> None:
    await until(lambda: not store.waiting and not store.writing)


async def until(check: Callable[[], bool], seconds: float = 10) -> None:
    end_s = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.005)
