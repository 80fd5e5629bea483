"""Stored answers in their file: kept by tenant and id, listed, changed, deleted, and let go when there are too many."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.gateway.listing import Window

SCHEMA = """
CREATE TABLE IF NOT EXISTS stored (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, id TEXT NOT NULL, at_s REAL NOT NULL,
    route TEXT NOT NULL, model TEXT NOT NULL, metadata TEXT NOT NULL, completion BLOB NOT NULL, messages BLOB NOT NULL,
    UNIQUE (tenant, id)
);
CREATE INDEX IF NOT EXISTS stored_by_tenant ON stored (tenant, number);
CREATE INDEX IF NOT EXISTS stored_by_time ON stored (at_s);
CREATE TABLE IF NOT EXISTS held (tenant TEXT PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS held_by_bytes ON held (bytes);
INSERT INTO held SELECT tenant, sum(length(completion) + length(messages)) FROM stored
    WHERE NOT EXISTS (SELECT 1 FROM held) GROUP BY tenant;
CREATE TRIGGER IF NOT EXISTS stored_more AFTER INSERT ON stored BEGIN
    INSERT INTO held VALUES (new.tenant, length(new.completion) + length(new.messages))
        ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS stored_less AFTER DELETE ON stored BEGIN
    UPDATE held SET bytes = bytes - length(old.completion) - length(old.messages) WHERE tenant = old.tenant;
END;
"""
INSERT = "INSERT OR IGNORE INTO stored VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
HAS_PAIR = " AND EXISTS (SELECT 1 FROM json_each(stored.metadata) WHERE key = ? AND value = ?)"
OLDEST_OF_MOST = """
DELETE FROM stored WHERE number = (
    SELECT min(number) FROM stored WHERE tenant = (SELECT tenant FROM held ORDER BY bytes DESC LIMIT 1)
)
"""
"""Whoever holds most lets go: nobody who floods the file takes what others hold within their share."""

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


class Row(Struct, frozen=True, array_like=True):
    """One stored answer, in the order of the columns."""

    tenant: str
    id: str
    at_s: float
    route: str
    model: str
    metadata: str
    completion: bytes
    messages: bytes


def insert(database: sqlite3.Connection, rows: Sequence[Row], *, keep_s: float, limit_bytes: int) -> None:
    """Keep some answers; past the limit, the tenant that holds most lets its oldest go."""
    database.executemany(INSERT, [msgspec.structs.astuple(row) for row in rows])
    if rows:
        database.execute("DELETE FROM stored WHERE at_s < ?", (rows[-1].at_s - keep_s,))
    while num_bytes(database) > limit_bytes and database.execute(OLDEST_OF_MOST).rowcount:
        continue


def num_bytes(database: sqlite3.Connection) -> int:
    """Bytes of the file that are in use."""
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def one(database: sqlite3.Connection, tenant: str, name: str) -> dict[str, Any] | None:
    """One answer, if this tenant has it."""
    found = database.execute(
        "SELECT completion, metadata FROM stored WHERE tenant = ? AND id = ?", (tenant, name)
    ).fetchone()
    return None if found is None else whole(*found)


def messages(database: sqlite3.Connection, tenant: str, name: str) -> list[dict[str, Any]] | None:
    """What was asked."""
    found = database.execute("SELECT messages FROM stored WHERE tenant = ? AND id = ?", (tenant, name)).fetchone()
    return None if found is None else list(decode(found[0]))


def page(
    database: sqlite3.Connection, tenant: str, wanted: Window, model: str, pairs: Mapping[str, str]
) -> list[dict[str, Any]] | None:
    """One answer more than is wanted of those that match; None where `after` is not one of them."""
    where, values = "tenant = ?", [tenant]
    if wanted.after:
        last = database.execute("SELECT number FROM stored WHERE tenant = ? AND id = ?", (tenant, wanted.after))
        number = last.fetchone()
        if number is None:
            return None
        where += f" AND number {wanted.sign} ?"
        values.append(number[0])
    if model:
        where += " AND (model = ? OR route = ?)"
        values += [model, model]
    for name, value in pairs.items():
        where += HAS_PAIR
        values += [name, value]
    order = f"ORDER BY number {wanted.order} LIMIT {wanted.limit + 1}"
    found = database.execute(f"SELECT completion, metadata FROM stored WHERE {where} {order}", values)  # noqa: S608 - words of ours
    return [whole(*row) for row in found]


def change(database: sqlite3.Connection, tenant: str, name: str, pairs: Mapping[str, str]) -> bool:
    """Give an answer other metadata; whether it is there."""
    change = (encode(pairs).decode(), tenant, name)
    return database.execute("UPDATE stored SET metadata = ? WHERE tenant = ? AND id = ?", change).rowcount > 0


def delete(database: sqlite3.Connection, tenant: str, name: str) -> bool:
    """Forget an answer; whether it was there."""
    return database.execute("DELETE FROM stored WHERE tenant = ? AND id = ?", (tenant, name)).rowcount > 0


def whole(completion: bytes, metadata: str) -> dict[str, Any]:
    """The answer with its metadata of today."""
    return {**decode(completion), "metadata": decode(metadata)}
