"""The book: entries go to SQLite in batches by one thread; recording one costs the request an append.

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
from time import time

import msgspec

from stepwell.errors import StoreError
from stepwell.ledger.entry import Entry, entry
from stepwell.ledger.prices import Price
from stepwell.types import Settled

log = logging.getLogger(__name__)

COLUMNS = tuple(field.name for field in msgspec.structs.fields(Entry))
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id TEXT, at_s REAL, tenant TEXT, principal TEXT, model TEXT, kind TEXT, stream INTEGER,
    step TEXT, engine TEXT, status INTEGER, complete INTEGER, input_tokens INTEGER, output_tokens INTEGER,
    tokens_estimated INTEGER, seconds REAL, first_s REAL, usd REAL, large_usd REAL, large_estimated INTEGER,
    visits TEXT
)
"""
VERSION = 1
ROW = f"({','.join('?' * len(COLUMNS))})"
ROWS_A_STATEMENT = 500
"""One statement for many rows: each statement hands the interpreter lock over and must win it back."""
DAMAGE = ("malformed", "not a database", "corrupt")
Watch = Callable[[Entry], None]


class Book:
    """A settler that writes down every request. `watch` is told of each entry, in the writer's thread."""

    def __init__(
        self, path: str | Path, prices: Mapping[str, Price], *, flush_ms: int, max_waiting: int, watch: Watch
    ) -> None:
        """`prices`: the large model's price by route. Raises StoreError where the file cannot be opened."""
        self.path, self.prices, self.watch = Path(path), prices, watch
        self.flush_s, self.max_waiting = flush_ms / 1000, max_waiting
        self.settled: deque[tuple[Settled, float]] = deque()
        self.entries: deque[Entry] = deque()
        self.num_dropped = 0
        self.refused = False
        self.stopping = Event()
        self.database = opened(self.path)
        self.writer = Thread(target=self.write_on, name="ledger writer", daemon=True)
        self.writer.start()

    def record(self, settled: Settled) -> None:
        """Take a request along with the next batch."""
        self.settled.append((settled, time()))

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        self.stopping.set()
        self.writer.join()
        self.database.close()

    # --- the writer thread

    def write_on(self) -> None:
        """Write a batch every `flush_s`, until closed."""
        while not self.stopping.wait(self.flush_s):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Turn what has settled into entries, and write all entries that wait, in one transaction."""
        while self.settled:
            settled, at_s = self.settled.popleft()
            made = entry(settled, self.prices[settled.request.model], at_s)
            self.watch(made)
            self.entries.append(made)
        if self.entries:
            self.write(list(self.entries))

    def write(self, batch: list[Entry]) -> None:
        """Write a batch; where the disk refuses, it waits for the next time."""
        try:
            with self.database:
                insert(self.database, batch)
        except sqlite3.Error as error:
            self.complain(error)
            while len(self.entries) > self.max_waiting:
                self.entries.popleft()
                self.num_dropped += 1
            return
        self.entries.clear()
        if self.refused:
            self.refused = False
            log.warning("the ledger %s is written again; %d entries were lost", self.path, self.num_dropped)

    def complain(self, error: sqlite3.Error) -> None:
        """Begin a damaged file anew; else say once that entries wait in memory."""
        if any(sign in str(error).lower() for sign in DAMAGE):
            self.database.close()
            with suppress(StoreError):
                self.database = begun_anew(self.path, error)
        elif not self.refused:
            self.refused = True
            log.error("the ledger %s cannot be written (%s): entries wait in memory", self.path, error)


def insert(database: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Insert entries, many a statement. There is no index: a ledger is written all day and read now and then."""
    remaining = iter(entries)
    while part := list(islice(remaining, ROWS_A_STATEMENT)):
        values = list(chain.from_iterable(map(msgspec.structs.astuple, part)))
        database.execute(f"INSERT INTO entries VALUES {','.join([ROW] * len(part))}", values)  # noqa: S608


def opened(path: Path) -> sqlite3.Connection:
    """Open or create a ledger; one that is damaged is moved aside. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return connected(path)
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.DatabaseError) and any(sign in str(error).lower() for sign in DAMAGE):
            return begun_anew(path, error)
        raise StoreError(f"the ledger {path} cannot be opened ({error}); choose another ledger.path") from error


def connected(path: Path) -> sqlite3.Connection:
    """One connection with the settings that let processes share the file. Raises StoreError for a newer file."""
    database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreError(f"the ledger {path} was written by a newer Stepwell (version {version}); update this one")  # noqa: TRY301
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(SCHEMA)
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("SELECT at_s FROM entries LIMIT 1").fetchone()
    except (sqlite3.Error, StoreError):
        database.close()
        raise
    return database


def begun_anew(path: Path, error: Exception) -> sqlite3.Connection:
    """Move a damaged ledger aside, never over another one, and start an empty one."""
    aside = path.with_name(f"{path.name}.damaged-{int(time())}")
    log.error("the ledger %s is damaged (%s): moved to %s, begun anew", path, error, aside)
    with suppress(FileNotFoundError):
        path.replace(aside)
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    try:
        return connected(path)
    except sqlite3.Error as again:
        raise StoreError(f"the ledger {path} cannot be begun anew ({again})") from again
