"""One process at a time: workers that start together must not create, or repair, the same file at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

PATIENCE_S = 30.0


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold SQLite's own lock on an empty file beside `path`: a process that dies lets go of it.

    Processes that turn a new file to WAL at once are told "locked" whatever their timeout. Raises sqlite3.Error.
    """
    with closing(sqlite3.connect(f"{path}.lock", timeout=PATIENCE_S, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield
