"""Uploaded files in the database: what is known of each. Their content lies beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from time import time
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.gateway.listing import Window

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, id TEXT NOT NULL UNIQUE, filename TEXT NOT NULL,
    purpose TEXT NOT NULL, bytes INTEGER NOT NULL, at_s REAL NOT NULL, expires_s REAL, num_rows INTEGER NOT NULL,
    num_long INTEGER NOT NULL, first_unanswered INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS files_by_tenant ON files (tenant, number);
CREATE TABLE IF NOT EXISTS moving (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, bytes INTEGER NOT NULL, at_s REAL NOT NULL, leaving INTEGER NOT NULL
);
"""
LONGEST_S = 3600.0
"""What has been coming for longer will not come any more."""
COLUMNS = "tenant, id, filename, purpose, bytes, at_s, expires_s, num_rows, num_long, first_unanswered"
LIVE = "(expires_s IS NULL OR expires_s > CAST(strftime('%s', 'now') AS REAL))"


class File(Struct, frozen=True, array_like=True):
    """One file, in the order of the columns."""

    tenant: str
    id: str
    filename: str
    purpose: str
    bytes: int
    at_s: float
    expires_s: float | None
    num_rows: int = 0
    num_long: int = 0
    first_unanswered: int = 0

    def told(self) -> dict[str, Any]:
        """As OpenAI tells it."""
        return {
            "object": "file",
            "id": self.id,
            "bytes": self.bytes,
            "created_at": int(self.at_s),
            "expires_at": None if self.expires_s is None else int(self.expires_s),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


def comes(database: sqlite3.Connection, tenant: str, name: str, size: int) -> None:
    """Enter that a file's content is about to be written."""
    database.execute("INSERT OR REPLACE INTO moving VALUES (?, ?, ?, ?, 0)", (name, tenant, size, time()))


def insert(database: sqlite3.Connection, file: File) -> bool:
    """Add a file that has come; whether it still was awaited."""
    awaited = database.execute("DELETE FROM moving WHERE id = ? AND NOT leaving", (file.id,)).rowcount > 0
    if awaited:
        marks = ", ".join("?" * len(COLUMNS.split(",")))
        database.execute(f"INSERT INTO files ({COLUMNS}) VALUES ({marks})", msgspec.structs.astuple(file))  # noqa: S608 - ours
    return awaited


def one(database: sqlite3.Connection, tenant: str, name: str) -> File | None:
    """A file, if this tenant has it."""
    found = database.execute(f"SELECT {COLUMNS} FROM files WHERE tenant = ? AND id = ? AND {LIVE}", (tenant, name))  # noqa: S608
    row = found.fetchone()
    return None if row is None else File(*row)


def page(database: sqlite3.Connection, tenant: str, wanted: Window, purpose: str) -> list[File] | None:
    """One file more than is wanted; None where `after` is not one of them."""
    where, values = f"tenant = ? AND {LIVE}", [tenant]
    if wanted.after:
        last = database.execute("SELECT number FROM files WHERE tenant = ? AND id = ?", (tenant, wanted.after))
        number = last.fetchone()
        if number is None:
            return None
        where += f" AND number {wanted.sign} ?"
        values.append(number[0])
    if purpose:
        where += " AND purpose = ?"
        values.append(purpose)
    order = f"ORDER BY number {wanted.order} LIMIT {wanted.limit + 1}"
    return [File(*row) for row in database.execute(f"SELECT {COLUMNS} FROM files WHERE {where} {order}", values)]  # noqa: S608


def num_bytes(database: sqlite3.Connection, tenant: str) -> int:
    """Bytes of all files of a tenant, those that come and go among them."""
    both = "SELECT tenant, bytes FROM files UNION ALL SELECT tenant, bytes FROM moving"
    found = database.execute(f"SELECT coalesce(sum(bytes), 0) FROM ({both}) WHERE tenant = ?", (tenant,))  # noqa: S608 - ours
    return int(found.fetchone()[0])


def leaves(database: sqlite3.Connection, name: str) -> None:
    """Forget a file, and enter that its content is about to be deleted."""
    marked = "INSERT OR REPLACE INTO moving SELECT id, tenant, bytes, ?, 1 FROM files WHERE id = ?"
    database.execute(marked, (time(), name))
    database.execute("DELETE FROM files WHERE id = ?", (name,))


def left(database: sqlite3.Connection, names: Sequence[str]) -> None:
    """The content of these is deleted."""
    database.executemany("DELETE FROM moving WHERE id = ?", [(name,) for name in names])


def over(database: sqlite3.Connection, user_of: Callable[[sqlite3.Connection, str], str]) -> list[str]:
    """Files whose content is to be deleted: their time is over and no job needs them, or a kill left them half way."""
    for (name,) in database.execute(f"SELECT id FROM files WHERE NOT {LIVE}").fetchall():  # noqa: S608
        if not user_of(database, name):
            leaves(database, name)
    database.execute("UPDATE moving SET leaving = 1 WHERE at_s < ?", (time() - LONGEST_S,))
    return [name for (name,) in database.execute("SELECT id FROM moving WHERE leaving")]
