"""Bytes by key in one SQLite file: reads at once, writes in batches by one thread, shared by several processes.

The file is a cache: it may be lost but must never lie. Every value carries a checksum, a damaged file is moved
aside and begun anew, a full disk costs the new entries only.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import zlib
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from threading import Event, Thread
from time import time

from stepwell.alone import alone
from stepwell.errors import StoreError

log = logging.getLogger(__name__)

SCHEMA = "CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, value BLOB, crc INTEGER, expires_s REAL) WITHOUT ROWID"
EXPIRY = "CREATE INDEX IF NOT EXISTS kept_expires ON kept (expires_s)"
PUT = "INSERT OR REPLACE INTO kept VALUES "
GET = "SELECT value, crc, expires_s FROM kept WHERE key = ?"
SOONEST = "DELETE FROM kept WHERE key IN (SELECT key FROM kept ORDER BY expires_s LIMIT ?)"

ROWS_A_STATEMENT = 500
"""One statement for many rows: each statement hands the interpreter lock over and must win it back."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
PURGE_EVERY = 64
"""Batches between two searches for what has expired."""
DAMAGE = ("malformed", "not a database", "corrupt", "disk i/o error", "no such table")

Row = tuple[bytes, bytes, int, float]
Held = tuple[bytes, float]


class Sqlite:
    """A Store. `put` returns at once; what it was given is on disk within `flush_ms` (or after `close`)."""

    def __init__(self, path: str | Path, *, limit_bytes: int, flush_ms: int) -> None:
        """Open or create the file. Raises StoreError where the folder cannot be written."""
        self.path, self.limit_bytes, self.flush_s = Path(path), limit_bytes, flush_ms / 1000
        self.waiting: dict[bytes, Held] = {}
        self.writing: dict[bytes, Held] = {}
        self.waiting_bytes = 0
        self.stopping = Event()
        self.complained = False
        self.reader = opened(self.path)
        self.writer = Thread(target=self.write_on, name="cache writer", daemon=True)
        self.writer.start()

    def get(self, key: bytes) -> Held | None:
        """Value and expiry, or None; a value whose checksum is wrong is as good as none."""
        held = self.waiting.get(key) or self.writing.get(key)
        if held is not None:
            return held
        try:
            row = self.reader.execute(GET, (key,)).fetchone()
        except sqlite3.Error as error:
            self.complain(error)
            return None
        if row is None or row[2] <= time() or checksum(key, row[0]) != row[1]:
            return None
        return row[0], row[2]

    def put(self, key: bytes, value: bytes, expires_s: float) -> None:
        """Take a value along with the next batch; where too much is waiting, it is let go."""
        if self.waiting_bytes + len(value) <= MAX_WAITING_BYTES:
            self.waiting[key] = (value, expires_s)
            self.waiting_bytes += len(value)

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        self.stopping.set()
        self.writer.join()
        self.reader.close()

    # --- the writer thread

    def write_on(self) -> None:
        """Write a batch every `flush_s`, until closed."""
        batches = 0
        while not self.stopping.wait(self.flush_s):
            if self.waiting:
                self.flush(purge=batches % PURGE_EVERY == 0)
                batches += 1
        self.flush(purge=False)

    def flush(self, *, purge: bool) -> None:
        """Write all that waits, in one transaction; a disk that refuses costs this batch, nothing else."""
        self.writing, self.waiting, self.waiting_bytes = self.waiting, {}, 0
        rows = [(key, value, checksum(key, value), expires) for key, (value, expires) in self.writing.items()]
        try:
            with closing(connected(self.path)) as database, database:
                insert(database, rows)
                if purge:
                    database.execute("DELETE FROM kept WHERE expires_s <= ?", (time(),))
                self.shrink(database)
            self.complained = False
        except sqlite3.Error as error:
            self.complain(error)
        self.writing = {}

    def shrink(self, database: sqlite3.Connection) -> None:
        """Where the file passes its limit, drop what expires soonest until a tenth of it is free."""
        used = used_bytes(database)
        if used > self.limit_bytes:
            (count,) = database.execute("SELECT count(*) FROM kept").fetchone()
            database.execute(SOONEST, (math.ceil(count * (1 - 0.9 * self.limit_bytes / used)),))

    def complain(self, error: sqlite3.Error) -> None:
        """A cache that fails is a slow cache, not a failed request: repair it, or say once that it keeps nothing."""
        if is_damage(error):
            with suppress(StoreError):
                self.reader = opened(self.path, suspect=True)
        elif not self.complained:
            self.complained = True
            log.warning("the cache file %s takes nothing (%s); answers are kept in memory only", self.path, error)


def insert(database: sqlite3.Connection, rows: list[Row]) -> None:
    """Insert rows, many a statement."""
    remaining = iter(rows)
    while part := list(islice(remaining, ROWS_A_STATEMENT)):
        places = ",".join(["(?,?,?,?)"] * len(part))
        database.execute(PUT + places, list(chain.from_iterable(part)))


def checksum(key: bytes, value: bytes) -> int:
    """CRC-32 over key and value: a value under the wrong key is as wrong as a damaged one."""
    return zlib.crc32(value, zlib.crc32(key))


def used_bytes(database: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    pages, free, page_bytes = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_bytes)


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
    database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(SCHEMA)
        database.execute(EXPIRY)
        database.execute(GET, (b"",)).fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


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
