"""Stored answers in their file, where there is room for fewer than were given: whoever holds most lets go."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.gateway import stored_rows
from stepwell.gateway.stored_rows import Row

LIMIT_BYTES = 400_000


def row(tenant: str, number: int, size: int = 3000) -> Row:
    return Row(tenant, f"{tenant}-{number}", float(number), "well", "m", "{}", b"x" * size, b"[]")


def kept(database: sqlite3.Connection, tenant: str) -> list[str]:
    found = database.execute("SELECT id FROM stored WHERE tenant = ? ORDER BY number", (tenant,))
    return [name for (name,) in found]


def insert(database: sqlite3.Connection, *rows: Row) -> None:
    stored_rows.insert(database, rows, keep_s=1e9, limit_bytes=LIMIT_BYTES)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(1, 20_000), min_size=150, max_size=300),
    st.lists(st.integers(1, 4000), min_size=1, max_size=12),
)
def test_whoever_floods_the_file_takes_nothing_from_others(flood: list[int], few: list[int]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(stored_rows.SCHEMA)
        insert(database, *(row("quiet", at, size) for at, size in enumerate(few)))
        for at, size in enumerate(flood):
            insert(database, row("loud", at, size))
            assert stored_rows.num_bytes(database) <= LIMIT_BYTES
        assert kept(database, "quiet") == [f"quiet-{at}" for at in range(len(few))]
        loud = kept(database, "loud")
        assert loud == [f"loud-{at}" for at in range(len(flood))][-len(loud) :], "its oldest go first"


def test_a_file_from_before_knows_what_each_holds() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        old = stored_rows.SCHEMA.partition("CREATE TABLE IF NOT EXISTS held")[0]
        database.executescript(old)
        database.execute(stored_rows.INSERT, ("a", "a-1", 1.0, "well", "m", "{}", b"x" * 30, b"[]"))
        for _ in range(2):
            database.executescript(stored_rows.SCHEMA)
        database.execute(stored_rows.INSERT, ("a", "a-2", 1.0, "well", "m", "{}", b"x" * 10, b"[]"))
        assert database.execute("SELECT * FROM held").fetchall() == [("a", 44)]
        assert stored_rows.delete(database, "a", "a-1")
        assert database.execute("SELECT * FROM held").fetchall() == [("a", 12)]
