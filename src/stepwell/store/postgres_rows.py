"""What `postgres.py` says to its server: each kind of question is one statement for all that were asked together.

Each locks what it touches in the order of keys, so that two processes never wait for each other. Time is the server's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncpg import Connection

SETUP = 7_283_746_591
APPENDS = SETUP + 1
"""Names of advisory locks: who makes the tables, and who adds to a log."""
SCHEMA = """
CREATE SEQUENCE IF NOT EXISTS stepwell_numbers START WITH {first};
CREATE TABLE IF NOT EXISTS stepwell_kept (key bytea PRIMARY KEY, value bytea NOT NULL, expires timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS stepwell_kept_expires ON stepwell_kept (expires);
CREATE TABLE IF NOT EXISTS stepwell_leases (key bytea PRIMARY KEY, fence bigint NOT NULL, expires timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS stepwell_logged
    (log bytea, position bigint, row bytea NOT NULL, expires timestamptz NOT NULL, PRIMARY KEY (log, position));
CREATE INDEX IF NOT EXISTS stepwell_logged_expires ON stepwell_logged (expires);
"""
"""Fences and positions begin at the time of day in microseconds: a database made anew goes on above the one before."""

GET = """
SELECT key, value, extract(epoch FROM expires - clock_timestamp())::float8 AS left_s
FROM stepwell_kept WHERE key = ANY($1::bytea[]) AND expires > clock_timestamp()
"""
KEEP = """
INSERT INTO stepwell_kept
SELECT key, value, clock_timestamp() + make_interval(secs => left_s)
FROM unnest($1::bytea[], $2::bytea[], $3::float8[]) AS asked (key, value, left_s)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires
"""
KEEP_FENCED = """
WITH held AS (
    SELECT asked.*
    FROM unnest($1::bytea[], $2::bytea[], $3::float8[], $4::bigint[]) AS asked (key, value, left_s, fence)
    JOIN stepwell_leases USING (key, fence) ORDER BY key FOR SHARE OF stepwell_leases
)
INSERT INTO stepwell_kept SELECT key, value, clock_timestamp() + make_interval(secs => left_s) FROM held
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires
"""
"""The lock makes a later lease wait for this commit: what it guards cannot be overwritten from before it."""
DROP = """
DELETE FROM stepwell_kept WHERE key IN
    (SELECT key FROM stepwell_kept WHERE key = ANY($1::bytea[]) ORDER BY key FOR UPDATE)
"""
LEASE = """
INSERT INTO stepwell_leases AS held
SELECT key, nextval('stepwell_numbers'), clock_timestamp() + make_interval(secs => ttl_s)
FROM unnest($1::bytea[], $2::float8[]) AS asked (key, ttl_s)
ON CONFLICT (key) DO UPDATE SET fence = nextval('stepwell_numbers'), expires = excluded.expires
WHERE held.expires <= clock_timestamp()
RETURNING key, fence
"""
RELEASE = """
UPDATE stepwell_leases SET expires = clock_timestamp() WHERE (key, fence) IN (
    SELECT key, fence FROM unnest($1::bytea[], $2::bigint[]) AS asked (key, fence)
    JOIN stepwell_leases USING (key, fence) ORDER BY key FOR UPDATE OF stepwell_leases
)
"""
APPEND = """
WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock($1))
INSERT INTO stepwell_logged
SELECT log, nextval('stepwell_numbers'), row, clock_timestamp() + make_interval(secs => left_s)
FROM alone, unnest($2::bytea[], $3::bytea[], $4::float8[]) AS asked (log, row, left_s)
"""
"""One at a time up to its commit: positions rise in the order in which rows can be seen."""
SINCE = """
SELECT position, row FROM stepwell_logged
WHERE log = $1 AND position > $2 AND expires > clock_timestamp() ORDER BY position LIMIT $3
"""
PURGE = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE expires < clock_timestamp() - make_interval(hours => {hours})
    LIMIT 5000 FOR UPDATE SKIP LOCKED
))
"""
OVER_HOURS = {"stepwell_kept": 1, "stepwell_logged": 1, "stepwell_leases": 24}


async def prepare(database: Connection[Any]) -> None:
    """Make the tables, unless they are there; of many processes that start together one does."""
    if await database.fetchval("SELECT to_regclass('stepwell_logged_expires')") is not None:
        return
    async with database.transaction():
        await database.execute("SELECT pg_advisory_xact_lock($1)", SETUP)
        first = await database.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint")
        await database.execute(SCHEMA.format(first=first))


async def values(database: Connection[Any], keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, float]]:
    """Values that are there, each with the seconds left to it."""
    return {key: (value, left_s) for key, value, left_s in await database.fetch(GET, keys)}


async def keep(database: Connection[Any], asked: Mapping[bytes, tuple[bytes, float]]) -> None:
    """Keep values for so many seconds."""
    rows = [(key, *asked[key]) for key in sorted(asked)]
    await database.execute(KEEP, *columns(rows, 3))


async def keep_fenced(database: Connection[Any], asked: Mapping[tuple[bytes, int], tuple[bytes, float]]) -> None:
    """Keep values by (key, fence), each unless its fence is not that of the last lease."""
    rows = [(key, *asked[key, fence], fence) for key, fence in sorted(asked)]
    await database.execute(KEEP_FENCED, *columns(rows, 4))


async def drop(database: Connection[Any], keys: Sequence[bytes]) -> None:
    """Forget values."""
    await database.execute(DROP, keys)


async def lease(database: Connection[Any], asked: Mapping[bytes, float]) -> dict[bytes, int]:
    """Fencing numbers by key, for the keys that nobody holds."""
    return dict(await database.fetch(LEASE, *columns(sorted(asked.items()), 2)))


async def release(database: Connection[Any], asked: Sequence[tuple[bytes, int]]) -> None:
    """End leases."""
    await database.execute(RELEASE, *columns(sorted(set(asked)), 2))


async def append(database: Connection[Any], asked: Sequence[tuple[bytes, bytes, float]]) -> None:
    """Add rows (log, row, seconds left) to the ends of their logs."""
    await database.execute(APPEND, APPENDS, *columns(asked, 3))


async def since(database: Connection[Any], log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
    """Rows of a log behind a position."""
    return [(at, row) for at, row in await database.fetch(SINCE, log, position, limit)]


async def purge(database: Connection[Any]) -> None:
    """Delete what is long over."""
    for table, hours in OVER_HOURS.items():
        await database.execute(PURGE.format(table=table, hours=hours))


def columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Rows turned into `count` arrays."""
    return [[row[index] for row in rows] for index in range(count)]
