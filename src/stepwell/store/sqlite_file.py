"""The file behind `sqlite.py`: its tables, how it is opened, and how a damaged one is begun anew.

It may be lost but must never lie: every value carries a checksum.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path
from time import time_ns

from stepwell.alone import alone
from stepwell.errors import StoreError

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, value BLOB, crc INTEGER, expires_s REAL);
CREATE INDEX IF NOT EXISTS kept_expires ON kept (expires_s);
CREATE TABLE IF NOT EXISTS leases (key BLOB PRIMARY KEY, fence INTEGER, expires_s REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS logged
    (position INTEGER PRIMARY KEY AUTOINCREMENT, log BLOB, row BLOB, crc INTEGER, expires_s REAL);
CREATE INDEX IF NOT EXISTS logged_log ON logged (log);
CREATE INDEX IF NOT EXISTS logged_expires ON logged (expires_s);
"""
"""`kept` has row numbers: in a table without, values from 1 kB on go to pages of their own, and a get costs double."""
LAST_POSITION = "SELECT seq FROM sqlite_sequence WHERE name = 'logged'"
DAMAGE = ("malformed", "not a database", "corrupt", "disk i/o error", "no such table")
PATIENCE_S = 5.0
READER_PATIENCE_MS = 20


def opened_twice(path: Path, *, suspect: bool = False) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """One connection to read on an event loop, which never waits for long, and one to write. Raises StoreError."""
    reader, writer = opened(path, suspect=suspect), opened(path)
    reader.execute(f"PRAGMA busy_timeout = {READER_PATIENCE_MS}")
    return reader, writer


def opened(path: Path, *, suspect: bool = False) -> sqlite3.Connection:
    """Open the file, or create it; where it proves damaged, begin it anew. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            return checked(path, suspect=suspect)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the cache file {path} cannot be opened ({error}); choose another cache.path") from error


def checked(path: Path, *, suspect: bool) -> sqlite3.Connection:
    """One connection to a file that is sound; a damaged one is begun anew. Raises sqlite3.Error."""
    try:
        database = connected(path)
        if suspect and database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            database.close()
            raise sqlite3.DatabaseError("its pages are malformed")
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return begun_anew(path, error)
    return database


def connected(path: Path) -> sqlite3.Connection:
    """One connection with the settings that make it quick and let processes share the file."""
    database = sqlite3.connect(path, timeout=PATIENCE_S, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(SCHEMA)
        database.execute("SELECT key FROM kept LIMIT 1").fetchone()
        if database.execute(LAST_POSITION).fetchone() is None:
            begin_positions(database)
    except sqlite3.Error:
        database.close()
        raise
    return database


def begin_positions(database: sqlite3.Connection) -> None:
    """Let positions begin at the time of day: a file that is begun anew goes on above the one before."""
    database.execute(
        f"INSERT INTO sqlite_sequence (name, seq) SELECT 'logged', ? WHERE NOT EXISTS ({LAST_POSITION})",
        (time_ns() // 1000,),
    )


def is_damage(error: Exception) -> bool:
    """Tell a damaged file from a full, locked or missing one."""
    return isinstance(error, sqlite3.DatabaseError) and any(sign in str(error).lower() for sign in DAMAGE)


def begun_anew(path: Path, error: Exception) -> sqlite3.Connection:
    """Move a damaged file aside and start an empty one; what it held will be asked for again."""
    aside = path.with_name(f"{path.name}.damaged")
    log.warning("the cache file %s is damaged (%s): moved to %s, begun anew", path, error, aside)
    with suppress(FileNotFoundError):
        path.replace(aside)
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    return connected(path)
