"""The ledger's file: SQLite in WAL that several processes write to; damage is set aside, never written over."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import time_ns

from stepwell.alone import alone
from stepwell.errors import StoreError

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id TEXT, at_s REAL, tenant TEXT, principal TEXT, model TEXT, kind TEXT, stream INTEGER,
    step TEXT, engine TEXT, status INTEGER, complete INTEGER, input_tokens INTEGER, output_tokens INTEGER,
    tokens_estimated INTEGER, seconds REAL, first_s REAL, usd REAL, large_usd REAL, large_estimated INTEGER,
    visits TEXT, error TEXT DEFAULT ''
)
"""
"""Without an index: a ledger is written all day and read now and then."""
SINCE_VERSION_1 = "ALTER TABLE entries ADD COLUMN error TEXT DEFAULT ''"
VERSION = 2
INSERT = "INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
LATEST = "SELECT id, at_s FROM entries ORDER BY rowid DESC LIMIT 20000"
"""Where to look for a batch that was written just before its writer died."""
OPEN_TIMEOUT_S, BUSY_TIMEOUT_MS = 5.0, 1000
"""How long to wait for another process that writes: at start, and for a batch."""
DAMAGE = ("malformed", "not a database", "corrupt")
TAILS = ("", "-wal", "-shm")
"""SQLite's files: the database, its log and the log's index."""

Row = Sequence[object]
"""An entry's values in the order of the columns."""
Identity = tuple[int, int] | None
"""Which file it is, whatever its name; None for one that is not there."""


class File:
    """A ledger to write to, opened with the first batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database: sqlite3.Connection | None = None
        self.identity: Identity = None

    def write(self, rows: Sequence[Row]) -> None:
        """Write a batch, whole or not at all. Raises StoreError, or sqlite3.Error where the disk refuses."""
        try:
            insert(self.standing(), rows)
        except sqlite3.DatabaseError as error:
            if not damaged(error):
                raise
            self.begin_anew(error)
            insert(self.standing(), rows)

    def has(self, row: Row) -> bool:
        """Say whether an entry is among the latest. Raises StoreError."""
        try:
            return (row[0], row[1]) in self.standing().execute(LATEST)
        except sqlite3.Error:
            return False  # `write` will say what is wrong

    def standing(self) -> sqlite3.Connection:
        """The connection; opened anew where its file is no longer the one at `path`. Raises StoreError."""
        if self.database is not None and identity(self.path) != self.identity:
            log.warning("the ledger %s was moved or removed: begun anew", self.path)
            with suppress(sqlite3.Error):
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.close()
        if self.database is None:
            self.database = opened(self.path)
            self.identity = identity(self.path)
        return self.database

    def begin_anew(self, error: Exception) -> None:
        """Set a damaged file aside, unless another process was faster."""
        self.close()
        with suppress(sqlite3.Error, OSError), alone(self.path):
            if identity(self.path) == self.identity:
                set_aside(self.path, error)

    def close(self) -> None:
        """Close the connection."""
        if self.database is not None:
            self.database.close()
            self.database = None


def insert(database: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows in one transaction."""
    with database:
        database.executemany(INSERT, rows)


def opened(path: Path) -> sqlite3.Connection:
    """Open or create a ledger; one that is damaged is set aside. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            try:
                return connected(path)
            except sqlite3.DatabaseError as error:
                if not damaged(error):
                    raise
                set_aside(path, error)
                return connected(path)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the ledger {path} cannot be opened ({error}); choose another ledger.path") from error


def connected(path: Path) -> sqlite3.Connection:
    """One connection with the settings that let processes share the file. Raises StoreError for a newer file."""
    database = sqlite3.connect(path, timeout=OPEN_TIMEOUT_S, check_same_thread=False)
    try:
        version_of(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(SCHEMA)
            if version_of(database, path) == 1:
                database.execute(SINCE_VERSION_1)
            database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("SELECT at_s FROM entries LIMIT 1").fetchone()
        database.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    except (sqlite3.Error, StoreError):
        database.close()
        raise
    return database


def version_of(database: sqlite3.Connection, path: Path) -> int:
    """Version of a ledger's schema, 0 for an empty file. Raises StoreError for one from the future."""
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StoreError(f"the ledger {path} was written by a newer Stepwell (version {version}); update this one")
    return version


def damaged(error: Exception) -> bool:
    """Say whether SQLite means the file itself, and not the disk or another process."""
    return isinstance(error, sqlite3.DatabaseError) and any(sign in str(error).lower() for sign in DAMAGE)


def identity(path: Path) -> Identity:
    """Device and number of the file at a path."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_aside(path: Path, error: Exception) -> None:
    """Move a damaged file out of the way, with its log, never over another one."""
    aside = f"{path.name}.damaged-{time_ns()}"
    for tail in TAILS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(path.with_name(aside + tail))
    log.error("the file %s is damaged (%s): moved to %s, begun anew", path, error, aside)
