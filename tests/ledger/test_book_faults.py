"""What the book must live through: nonsense from engines, other processes, damage, and a disk that is full to the end."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import PRICE, book, rows, settled, wait

from stepwell.errors import EngineTimeout
from stepwell.ledger.book import COLUMNS, SCHEMA
from stepwell.ledger.entry import MOST_TOKENS, entry
from stepwell.types import Usage

RUBBISH = b"rubbish" * 3000
NUM_EACH = 50
CHILD = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from made import book, settled
print("ready", flush=True)
sys.stdin.readline()
ledger = book(Path(sys.argv[1]))
for number in range({num}):
    ledger.record(settled(number, tenant=sys.argv[2]))
ledger.close()
"""


@given(st.integers(), st.integers())
def test_an_engine_that_tells_nonsense_is_not_believed(into: int, out: int) -> None:
    told = entry(settled(usage=Usage(into, out)), PRICE, 0.0)
    assert 0 <= told.input_tokens <= MOST_TOKENS
    assert 0 <= told.output_tokens <= MOST_TOKENS
    honest = (told.input_tokens, told.output_tokens) == (into, out)
    assert told.tokens_estimated == told.large_estimated == (not honest)


def test_what_cannot_be_written_down_is_counted_and_the_rest_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = book(tmp_path / "ledger.db")
    ledger.record(settled(1, usage=Usage(10**30, -5)))
    wait(lambda: rows(tmp_path / "ledger.db"))
    ledger.prices = {}
    ledger.record(settled(2))
    wait(lambda: ledger.num_dropped)
    ledger.prices = {"well": PRICE}
    ledger.record(settled(3))
    ledger.close()
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
    ledger = book(path)
    ledger.record(settled(1))
    wait(lambda: rows(path))
    ledger.identity = (0, 0)
    ledger.complain(sqlite3.DatabaseError("database disk image is malformed"))
    ledger.record(settled(2))
    ledger.close()
    assert len(rows(path)) == 2
    assert not list(tmp_path.glob("*.damaged-*"))


def test_damage_while_running_begins_a_new_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path)
    for number in range(500):
        ledger.record(settled(number))
    wait(lambda: len(rows(path)) == 500)
    assert ledger.database is not None
    ledger.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    ledger.database.execute("PRAGMA cache_size = 0")
    ledger.record(settled(1000))
    wait(lambda: "begun anew" in caplog.text)
    ledger.close()
    assert [row[0] for row in rows(path)] == ["req-1000"]
    assert list(tmp_path.glob("*.damaged-*"))


def test_a_ledger_that_is_removed_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path)
    ledger.record(settled(1))
    wait(lambda: len(rows(path)) == 1)
    path.rename(tmp_path / "archive.db")
    ledger.record(settled(2))
    ledger.close()
    assert [row[0] for row in rows(path)] == ["req-2"]
    assert [row[0] for row in rows(tmp_path / "archive.db")] == ["req-1"]
    assert "was moved or removed" in caplog.text


def test_what_a_full_disk_refuses_to_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = book(tmp_path / "ledger.db")
    assert ledger.database is not None
    pages = ledger.database.execute("PRAGMA page_count").fetchone()[0]
    ledger.database.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(300):
        ledger.record(settled(number))
    with caplog.at_level(logging.ERROR):
        ledger.close()
    assert ledger.num_dropped + len(rows(tmp_path / "ledger.db")) == 300
    assert f"{ledger.num_dropped} entries are lost" in caplog.text


def test_a_refusing_disk_is_not_asked_at_every_flush(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = book(tmp_path / "ledger.db", flush_ms=1)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ledger.record(settled())
        wait(lambda: ledger.refused)
        began_s = ledger.retry_at_s
        assert began_s > time.monotonic()
        other.execute("ROLLBACK")
    wait(lambda: not ledger.refused)
    ledger.close()
    assert len(rows(tmp_path / "ledger.db")) == 1
    assert caplog.text.count("cannot be written") == 1, "said once"


def test_a_ledger_of_version_1_learns_the_new_column(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(SCHEMA.replace(", error TEXT DEFAULT ''", ""))
        database.execute("INSERT INTO entries (id) VALUES (1), (2), (3)")
        database.execute("PRAGMA user_version = 1")
    for number in range(2):
        ledger = book(path)
        ledger.record(settled(number, step="", error=EngineTimeout("too slow")))
        ledger.close()
    assert [row[COLUMNS.index("error")] for row in rows(path)] == ["", "", "", "engine_timeout", "engine_timeout"]
