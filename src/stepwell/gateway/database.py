"""A small SQLite file for what callers gave us to keep: processes share it, threads work on it, first use makes it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeVar

from stepwell.alone import alone
from stepwell.errors import StoreError
from stepwell.gateway import private
from stepwell.ledger.file import damaged, set_aside

PATIENCE_S = 5.0
"""How long to wait for another process that writes."""
Found = TypeVar("Found")
Work = Callable[[sqlite3.Connection], Found]


class Database:
    """One file; every piece of work is a transaction. A damaged file is set aside and begun anew."""

    def __init__(self, path: str | Path, schema: str) -> None:
        self.path, self.schema = Path(path), schema
        self.connection: sqlite3.Connection | None = None
        self.lock = Lock()

    async def run(self, work: Work[Found]) -> Found:
        """Do some work in a thread. Raises StoreError, and whatever `work` raises of its own."""
        return await asyncio.to_thread(self.do, work)

    def do(self, work: Work[Found]) -> Found:
        """Do some work here: whole or not at all."""
        with self.lock:
            try:
                connection = self.opened()
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    return work(connection)
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, sqlite3.Error) and damaged(error):
                    self.shut()
                    set_aside(self.path, error)
                raise StoreError(f"the file {self.path} cannot be used ({error})") from error

    def opened(self) -> sqlite3.Connection:
        """The connection, made at first use. Raises sqlite3.Error and OSError."""
        if self.connection is None:
            private.folder(self.path.parent)
            with alone(self.path):
                private.opened(self.path, "ab").close()  # SQLite's other files take after this one
                self.connection = connected(self.path, self.schema)
        return self.connection

    def shut(self) -> None:
        """Close the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


def connected(path: Path, schema: str) -> sqlite3.Connection:
    """One connection to a file that has its tables."""
    connection = sqlite3.connect(path, timeout=PATIENCE_S, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(schema)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
