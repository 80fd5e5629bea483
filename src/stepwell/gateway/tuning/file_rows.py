"""Uploaded files in the database: what is known of each. Their content lies beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
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
"""
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


def insert(database: sqlite3.Connection, file: File) -> None:
    """Add a file."""
    marks = ", ".join("?" * len(COLUMNS.split(",")))
    database.execute(f"INSERT INTO files ({COLUMNS}) VALUES ({marks})", msgspec.structs.astuple(file))  # noqa: S608 - ours


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
    """Bytes of all files of a tenant."""
    return int(database.execute("SELECT coalesce(sum(bytes), 0) FROM files WHERE tenant = ?", (tenant,)).fetchone()[0])


def delete(database: sqlite3.Connection, tenant: str, name: str) -> bool:
    """Forget a file; whether it was there."""
    return database.execute("DELETE FROM files WHERE tenant = ? AND id = ?", (tenant, name)).rowcount > 0


def expired(database: sqlite3.Connection, user_of: Callable[[sqlite3.Connection, str], str]) -> list[str]:
    """Forget the files whose time is over, and that nobody uses; their ids."""
    over = database.execute(f"SELECT id FROM files WHERE NOT {LIVE}").fetchall()  # noqa: S608
    names = [name for (name,) in over if not user_of(database, name)]
    database.executemany("DELETE FROM files WHERE id = ?", [(name,) for name in names])
    return names
