"""The book: entries go to SQLite in batches by one thread; recording one costs the request microseconds.

Several processes may write to one file. While the disk refuses, entries wait in memory; a kill loses at most the
last `flush_ms`.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from threading import Event, Thread
from time import monotonic, time, time_ns

import msgspec

from stepwell.alone import alone
from stepwell.errors import StoreError
from stepwell.ledger.entry import Entry, as_tuple, entry
from stepwell.ledger.prices import Price
from stepwell.types import Settled, Visit

log = logging.getLogger(__name__)

COLUMNS = tuple(field.name for field in msgspec.structs.fields(Entry))
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id TEXT, at_s REAL, tenant TEXT, principal TEXT, model TEXT, kind TEXT, stream INTEGER,
    step TEXT, engine TEXT, status INTEGER, complete INTEGER, input_tokens INTEGER, output_tokens INTEGER,
    tokens_estimated INTEGER, seconds REAL, first_s REAL, usd REAL, large_usd REAL, large_estimated INTEGER,
    visits TEXT, error TEXT DEFAULT ''
)
"""
SINCE_VERSION_1 = "ALTER TABLE entries ADD COLUMN error TEXT DEFAULT ''"
VERSION = 2
ROW = f"({','.join('?' * len(COLUMNS))})"
ROWS_A_STATEMENT = 500
"""One statement for many rows: each statement hands the interpreter lock over and must win it back."""
ROWS_A_TRANSACTION = 5000
"""What is tried again at once where the disk refuses, so that trying does not cost much."""
RETRY_S = 1.0
OPEN_TIMEOUT_S, BUSY_TIMEOUT_MS = 5.0, 1000
"""How long to wait for another process that writes: at start, and for a batch."""
DAMAGE = ("malformed", "not a database", "corrupt")
TAILS = ("", "-wal", "-shm")
"""SQLite's files: the database, its log and the log's index."""

Watch = Callable[[Entry, tuple[Visit, ...]], None]
Identity = tuple[int, int] | None
"""Which file it is, whatever its name; None for one that is not there."""


class Book:
    """A settler that writes down every request. `watch` is told of each entry as it is made."""

    def __init__(
        self, path: str | Path, prices: Mapping[str, Price], *, flush_ms: int, max_waiting: int, watch: Watch
    ) -> None:
        """`prices`: the large model's price by route. Raises StoreError where the file cannot be opened."""
        self.path, self.prices, self.watch = Path(path), prices, watch
        self.flush_s, self.max_waiting = flush_ms / 1000, max_waiting
        self.entries: deque[Entry] = deque()
        self.num_dropped = 0
        self.refused = False
        self.retry_at_s = 0.0
        self.stopping = Event()
        self.database: sqlite3.Connection | None = opened(self.path)
        self.identity = identity(self.path)
        self.writer = Thread(target=self.write_on, name="ledger writer", daemon=True)
        self.writer.start()

    def record(self, settled: Settled) -> None:
        """Make the entry of one request, for the next batch; one that cannot be made is lost, and said.

        Here and not in the writer's thread: two threads that run Python at once pay more for handing the
        interpreter's lock to and fro than the entry costs.
        """
        try:
            made = entry(settled, self.prices[settled.request.model], time())
            self.watch(made, settled.outcome.visits)
        except Exception:  # one request that cannot be written down must not end the ledger
            self.num_dropped += 1
            log.exception("request %s cannot be written down", settled.request.id)
            return
        self.entries.append(made)

    def close(self) -> None:
        """Write what is waiting, and close the file; what the disk still refuses is lost, and said."""
        self.stopping.set()
        self.writer.join()
        if self.entries:
            log.error("the ledger %s cannot be written: %d entries are lost", self.path, len(self.entries))
            self.num_dropped += len(self.entries)
            self.entries.clear()
        if self.database is not None:
            self.database.close()

    # --- the writer thread

    def write_on(self) -> None:
        """Write a batch every `flush_s`, until closed."""
        while not self.stopping.wait(self.flush_s):
            self.flush()
        self.retry_at_s = 0.0
        self.flush()

    def flush(self) -> None:
        """Write all entries that wait."""
        if self.entries and monotonic() >= self.retry_at_s:
            self.write()

    def write(self) -> None:
        """Write what waits; where the disk refuses, the rest waits for the next time, the oldest lost first."""
        batch: list[Entry] = []
        try:
            database = self.standing()
            while batch := self.next_batch():
                with database:
                    insert(database, batch)
                batch = []
        except Exception as error:  # noqa: BLE001 - a thread that dies would lose all that comes after
            self.entries.extendleft(reversed(batch))
            self.complain(error)
            while len(self.entries) > self.max_waiting:
                self.entries.popleft()
                self.num_dropped += 1
        else:
            if self.refused:
                self.refused = False
                log.warning("the ledger %s is written again; %d entries were lost", self.path, self.num_dropped)

    def next_batch(self) -> list[Entry]:
        """Take the oldest entries; other threads may add some meanwhile."""
        return [self.entries.popleft() for _ in range(min(len(self.entries), ROWS_A_TRANSACTION))]

    def standing(self) -> sqlite3.Connection:
        """The connection; opened anew where its file is no longer the one at `path`. Raises StoreError."""
        if self.database is not None and identity(self.path) != self.identity:
            log.warning("the ledger %s was moved or removed: begun anew", self.path)
            with suppress(sqlite3.Error):
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.database.close()
            self.database = None
        if self.database is None:
            self.database = opened(self.path)
            self.identity = identity(self.path)
        return self.database

    def complain(self, error: Exception) -> None:
        """Set a damaged file aside, for the next batch to begin a new one; else say once that entries wait."""
        if damaged(error) and self.database is not None:
            self.database.close()
            self.database = None
            with suppress(sqlite3.Error, OSError), alone(self.path):
                if identity(self.path) == self.identity:  # else another process was faster
                    set_aside(self.path, error)
            return
        self.retry_at_s = monotonic() + RETRY_S
        if not self.refused:
            self.refused = True
            log.error("the ledger %s cannot be written (%s): entries wait in memory", self.path, error)


def insert(database: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Insert entries, many a statement. There is no index: a ledger is written all day and read now and then."""
    remaining = iter(entries)
    while part := list(islice(remaining, ROWS_A_STATEMENT)):
        values = list(chain.from_iterable(map(as_tuple, part)))
        database.execute(f"INSERT INTO entries VALUES {','.join([ROW] * len(part))}", values)  # noqa: S608


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
    """Move a damaged ledger out of the way, with its log, never over another one."""
    aside = f"{path.name}.damaged-{time_ns()}"
    for tail in TAILS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(path.with_name(aside + tail))
    log.error("the ledger %s is damaged (%s): moved to %s, begun anew", path, error, aside)
