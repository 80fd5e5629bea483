"""What the book must live through: nonsense from engines, other processes, damage, and a disk that is full to the end."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import PRICE, book, rows, settled, wait, write
from msgspec.structs import astuple

from stepwell.errors import EngineTimeout, StoreError
from stepwell.ledger.entry import MOST_TOKENS, entry
from stepwell.ledger.file import SCHEMA, File
from stepwell.ledger.listen import LENGTH
from stepwell.ledger.pipe import COMMAND, encode
from stepwell.ledger.scribe import answer
from stepwell.types import Usage

RUBBISH = b"rubbish" * 3000
NUM_EACH = 50
CHILD = """
import asyncio, sys
sys.path[:0] = {path!r}
from pathlib import Path
from made import book, settled
async def main():
    ledger = book(Path(sys.argv[1]))
    for number in range({num}):
        ledger.record(settled(number, tenant=sys.argv[2]))
    await ledger.close()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


@given(st.integers(), st.integers())
def test_an_engine_that_tells_nonsense_is_not_believed(into: int, out: int) -> None:
    told = entry(settled(usage=Usage(into, out)), PRICE, 0.0)
    assert 0 <= told.input_tokens <= MOST_TOKENS
    assert 0 <= told.output_tokens <= MOST_TOKENS
    honest = (told.input_tokens, told.output_tokens) == (into, out)
    assert told.tokens_estimated == told.large_estimated == (not honest)


async def test_what_cannot_be_written_down_is_counted_and_the_rest_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = book(tmp_path / "ledger.db")
    ledger.record(settled(1, usage=Usage(10**30, -5)))
    await wait(lambda: rows(tmp_path / "ledger.db"))
    ledger.prices = {}
    ledger.record(settled(2))
    await wait(lambda: ledger.num_dropped)
    ledger.prices = {"well": PRICE}
    ledger.record(settled(3))
    await ledger.close()
    assert [row[0] for row in rows(tmp_path / "ledger.db")] == ["req-1", "req-3"]
    assert "request req-2 cannot be written down" in caplog.text


@pytest.mark.parametrize("content", [None, RUBBISH], ids=["new", "damaged"])
def test_processes_that_start_at_once_share_one_ledger(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ledger.db"
    if content is not None:
        path.write_bytes(content)
    code = CHILD.format(path=[str(Path(__file__).parent), *sys.path], num=NUM_EACH)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), f"tenant-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for child in started:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in started:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in started:
        child.communicate(timeout=30)
        assert child.returncode == 0
    assert len(rows(path)) == 4 * NUM_EACH
    asides = [aside.read_bytes() for aside in tmp_path.glob("ledger.db.damaged-*")]
    assert asides == ([] if content is None else [content]), "moved aside once, and as it was"


def test_only_the_file_that_was_found_damaged_is_set_aside(tmp_path: Path) -> None:
    """Another process has set the damaged file aside, and begun the one that is there now."""
    path = tmp_path / "ledger.db"
    write(path, settled(1))
    file = File(path)
    file.identity = (0, 0)
    file.begin_anew(sqlite3.DatabaseError("database disk image is malformed"))
    file.close()
    write(path, settled(2))
    assert len(rows(path)) == 2
    assert not list(tmp_path.glob("*.damaged-*"))


def test_damage_while_running_begins_a_new_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.db"
    write(path, *map(settled, range(500)))
    file = File(path)
    with path.open("r+b") as raw:
        raw.write(b"\xff" * path.stat().st_size)
    file.standing().execute("PRAGMA cache_size = 0")
    file.write([astuple(entry(settled(1000), PRICE, 0.0))])
    file.close()
    assert "begun anew" in caplog.text
    assert [row[0] for row in rows(path)] == ["req-1000"]
    assert list(tmp_path.glob("*.damaged-*"))


async def test_a_writer_that_is_killed_is_started_again_and_nothing_is_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path, flush_ms=1)
    for number in range(300):
        ledger.record(settled(number))
        await asyncio.sleep(0.002)
        if number % 60 == 59:
            await wait(lambda: ledger.pipe.process)
            assert ledger.pipe.process is not None
            ledger.pipe.process.kill()
    await ledger.close()
    assert ledger.num_dropped == 0
    assert sorted(str(row[0]) for row in rows(path)) == sorted(f"req-{number}" for number in range(300))


def test_a_batch_whose_writer_died_before_it_could_say_so_is_known(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    batch = [astuple(entry(settled(number), PRICE, float(number))) for number in range(3)]
    file = File(path)
    for _ in range(2):
        assert answer(file, batch, ours=False) == b""
    assert len(rows(path)) == 3
    assert answer(file, [astuple(entry(settled(2), PRICE, 99.0))], ours=False) == b""
    assert len(rows(path)) == 4
    file.close()


def test_the_scribe_outlives_nobody_and_is_not_stopped_by_signals(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    scribe = subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    batch = encode([astuple(entry(settled(1), PRICE, 0.0))])
    assert scribe.stdin is not None
    assert scribe.stdout is not None
    scribe.stdin.write(LENGTH.pack(len(batch)) + batch)
    scribe.stdin.flush()
    assert scribe.stdout.read(LENGTH.size) == LENGTH.pack(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        scribe.send_signal(number)
    scribe.stdin.write(LENGTH.pack(len(batch)) + batch[:5])
    scribe.stdin.close()
    assert scribe.wait(10) == 0
    scribe.stdout.close()
    assert len(rows(path)) == 1, "half a batch is none"


async def test_a_ledger_that_is_removed_is_begun_anew(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path)
    ledger.record(settled(1))
    await wait(lambda: len(rows(path)) == 1)
    path.rename(tmp_path / "archive.db")
    ledger.record(settled(2))
    await ledger.close()
    assert [row[0] for row in rows(path)] == ["req-2"]
    assert [row[0] for row in rows(tmp_path / "archive.db")] == ["req-1"]
    assert "was moved or removed" in capfd.readouterr().err


async def test_what_a_full_disk_refuses_to_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path)
    ledger.record(settled(-1))
    await wait(lambda: rows(path))
    assert ledger.pipe.process is not None
    resource.prlimit(ledger.pipe.process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    for number in range(300):
        ledger.record(settled(number))
    await ledger.close()
    assert ledger.num_dropped == 300
    assert len(rows(path)) == 1
    assert "300 entries are lost" in caplog.text


async def test_what_comes_while_the_last_batch_is_refused_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = book(tmp_path / "ledger.db")
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def refused(_batch: object) -> None:
        under_way.set()
        await go_on.wait()
        raise StoreError("the disk is full")

    monkeypatch.setattr(ledger.pipe, "write", refused)
    ledger.record(settled(1))
    await under_way.wait()
    ledger.record(settled(2))
    ended = asyncio.create_task(ledger.close())
    await asyncio.sleep(0)
    go_on.set()
    await ended
    assert ledger.num_dropped == 2


async def test_a_refusing_disk_is_complained_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = book(tmp_path / "ledger.db", flush_ms=1)
    ledger.record(settled())
    await wait(lambda: rows(tmp_path / "ledger.db"))
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ledger.record(settled())
        await wait(lambda: ledger.refused)
        refused = len(caplog.records)
        await asyncio.sleep(0.1)
        assert len(caplog.records) == refused
        other.execute("ROLLBACK")
    await wait(lambda: not ledger.refused)
    await ledger.close()
    assert len(rows(tmp_path / "ledger.db")) == 2
    assert caplog.text.count("cannot be written") == 1, "said once"


async def test_a_ledger_of_version_1_learns_the_new_column(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(SCHEMA.replace(", error TEXT DEFAULT ''", ""))
        database.execute("INSERT INTO entries (id) VALUES (1), (2), (3)")
        database.execute("PRAGMA user_version = 1")
    for number in range(2):
        ledger = book(path)
        ledger.record(settled(number, step="", error=EngineTimeout("too slow")))
        await ledger.close()
    assert [row[-1] for row in rows(path)] == ["", "", "", "engine_timeout", "engine_timeout"]
