"""What `sqlite.py` says to its file, statement by statement. All raise sqlite3.Error."""

from __future__ import annotations

import math
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice

Held = tuple[bytes, float]
Logged = tuple[bytes, bytes, float]
"""Log, row, expiry."""

GET = "SELECT value, crc, expires_s FROM kept WHERE key = ? AND expires_s > ?"
PUT = "INSERT OR REPLACE INTO kept VALUES "
PUT_FENCED = (
    "INSERT OR REPLACE INTO kept SELECT ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM leases WHERE key = ? AND fence = ?)"
)
APPEND = "INSERT INTO logged (log, row, crc, expires_s) VALUES "
SINCE = (
    "SELECT position, row, crc FROM logged WHERE log = ? AND position > ? AND expires_s > ? ORDER BY position LIMIT ?"
)
LATEST = """
SELECT expires_s FROM (SELECT expires_s FROM kept UNION ALL SELECT expires_s FROM logged)
ORDER BY expires_s LIMIT 1 OFFSET ?
"""
SOONEST_KEPT = "DELETE FROM kept WHERE key IN (SELECT key FROM kept WHERE expires_s <= ? ORDER BY expires_s LIMIT ?)"
SOONEST_LOGGED = """
DELETE FROM logged WHERE position IN
    (SELECT position FROM logged WHERE expires_s <= ? ORDER BY expires_s, position LIMIT ?)
"""

ROWS_A_STATEMENT = 500
"""One statement for many rows: each statement hands the interpreter lock over and must win it back."""
OVER_S = 3600.0
"""What has been over for so long is deleted: a clock that is wrong for a moment costs nothing."""
LEASES_OVER_S = 86_400.0
PURGED_AT_ONCE = 10_000


def value(database: sqlite3.Connection, key: bytes, now_s: float) -> Held | None:
    """Value and expiry, unless it is over or its checksum is wrong."""
    row = database.execute(GET, (key, now_s)).fetchone()
    return (row[0], row[2]) if row is not None and checksum(key, row[0]) == row[1] else None


def keep(database: sqlite3.Connection, kept: Mapping[bytes, Held]) -> None:
    """Keep values."""
    insert(database, PUT, [(key, value, checksum(key, value), expires_s) for key, (value, expires_s) in kept.items()])


def keep_fenced(database: sqlite3.Connection, key: bytes, value: bytes, expires_s: float, fence: int) -> None:
    """Keep a value, unless its fence is not that of the last lease on `key`."""
    database.execute(PUT_FENCED, (key, value, checksum(key, value), expires_s, key, fence))


def drop(database: sqlite3.Connection, key: bytes) -> None:
    """Forget a value."""
    database.execute("DELETE FROM kept WHERE key = ?", (key,))


def lease(database: sqlite3.Connection, key: bytes, now_s: float, until_s: float) -> int | None:
    """A number above every earlier one on `key`, or None while somebody else holds a lease.

    It is the time of day in microseconds, so that a file that is begun anew goes on above the one before.
    """
    last = database.execute("SELECT fence, expires_s FROM leases WHERE key = ?", (key,)).fetchone()
    if last is not None and last[1] > now_s:
        return None
    fence = max(int(now_s * 1e6), last[0] + 1 if last else 0)
    database.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (key, fence, until_s))
    return fence


def release(database: sqlite3.Connection, key: bytes, fence: int, now_s: float) -> None:
    """End a lease; its number stays the last one."""
    database.execute("UPDATE leases SET expires_s = ? WHERE key = ? AND fence = ?", (now_s, key, fence))


def log(database: sqlite3.Connection, logged: Sequence[Logged]) -> None:
    """Add rows to the ends of their logs: one writer at a time, so positions rise in the order of commits."""
    insert(database, APPEND, [(name, row, checksum(name, row), expires_s) for name, row, expires_s in logged])


def since(
    database: sqlite3.Connection, name: bytes, position: int, limit: int, now_s: float
) -> list[tuple[int, bytes]]:
    """Rows of a log behind `position` that are not over and whose checksum is right."""
    while True:
        found = database.execute(SINCE, (name, position, now_s, limit)).fetchall()
        sound = [(at, row) for at, row, crc in found if checksum(name, row) == crc]
        if sound or len(found) < limit:
            return sound
        position = found[-1][0]


def purge(database: sqlite3.Connection, now_s: float) -> None:
    """Delete what is long over."""
    with transaction(database):
        for statement in (SOONEST_KEPT, SOONEST_LOGGED):
            database.execute(statement, (now_s - OVER_S, PURGED_AT_ONCE))
        database.execute("DELETE FROM leases WHERE expires_s <= ?", (now_s - LEASES_OVER_S,))


def shrink(database: sqlite3.Connection, limit_bytes: int) -> None:
    """Where the file passes its limit, delete what expires soonest until a tenth of it is free.

    Values and rows of logs share one cut, so that an event about values outlives them where it expires later.
    """
    used = used_bytes(database)
    if used <= limit_bytes:
        return
    with transaction(database):
        (count,) = database.execute("SELECT (SELECT count(*) FROM kept) + (SELECT count(*) FROM logged)").fetchone()
        num_over = math.ceil(count * (1 - 0.9 * limit_bytes / used))
        latest = database.execute(LATEST, (max(num_over - 1, 0),)).fetchone()
        for statement in (SOONEST_KEPT, SOONEST_LOGGED) if latest else ():
            database.execute(statement, (latest[0], num_over))


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it or nothing; the only one that writes."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def insert(database: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows of four columns, many a statement."""
    remaining = iter(rows)
    while part := list(islice(remaining, ROWS_A_STATEMENT)):
        database.execute(into + ",".join(["(?,?,?,?)"] * len(part)), list(chain.from_iterable(part)))


def checksum(key: bytes, value: bytes) -> int:
    """CRC-32 over key and value: a value under the wrong key is as wrong as a damaged one."""
    return zlib.crc32(value, zlib.crc32(key))


def used_bytes(database: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    pages, free, page_bytes = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_bytes)
