"""A Store in PostgreSQL: what several machines share and must not lose. Time is the server's.

Three connections: reads; values, whose commits do not wait for the disk; and whatever must last (leases, drops, logs).
Questions that come while one is busy go together, in one statement a kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

import asyncpg

from stepwell.store import postgres_rows as rows
from stepwell.store.clock import expiry_s, left_s
from stepwell.store.line import VALUES_TOGETHER, Line

PLACE = "the PostgreSQL store"
WRITE_S = 1.0
PURGE_EVERY_S = 60.0


class Put(NamedTuple):
    """Keep a value."""

    key: bytes
    value: bytes
    expires_s: float
    fence: int


class Drop(NamedTuple):
    """Forget a value."""

    key: bytes


class Lease(NamedTuple):
    """Be the only one."""

    key: bytes
    ttl_s: float


class Release(NamedTuple):
    """End a lease."""

    key: bytes
    fence: int


class Append(NamedTuple):
    """Add a row to a log."""

    log: bytes
    row: bytes
    expires_s: float


class Since(NamedTuple):
    """Read a log."""

    log: bytes
    position: int
    limit: int


Noted = Drop | Lease | Release | Append | Since


class Session:
    """One connection, made when it is needed and anew after whatever went wrong on it."""

    def __init__(self, url: str, password: str, **settings: str) -> None:
        self.url, self.password, self.settings = url, password, settings
        self.database: asyncpg.Connection[Any] | None = None

    async def __aenter__(self) -> asyncpg.Connection[Any]:
        if self.database is None or self.database.is_closed():
            self.database = await self.connected()
        return self.database

    async def connected(self) -> asyncpg.Connection[Any]:
        """A new connection to a database that has the tables."""
        settings = {"application_name": "stepwell", **self.settings}
        database = await asyncpg.connect(self.url, password=self.password or None, server_settings=settings)
        try:
            await rows.prepare(database)
        except BaseException:
            database.terminate()
            raise
        return database

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None and self.database is not None:
            self.database.terminate()
            self.database = None

    async def close(self) -> None:
        """Say goodbye; a server that hangs is left without."""
        if self.database is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await self.database.close(timeout=1)


class Postgres:
    """A Store."""

    name = "postgres"

    def __init__(self, url: str, *, password: str = "", deadline_s: float = 0.05) -> None:
        """Nothing is asked of the server yet; one that is not there costs StoreErrors, not a start."""
        self.reading, self.noting = Session(url, password), Session(url, password)
        self.keeping = Session(url, password, synchronous_commit="off")
        write_s = max(WRITE_S, deadline_s)
        self.reads: Line[bytes, tuple[bytes, float] | None] = Line(PLACE, self.read, deadline_s)
        self.values: Line[Put, None] = Line(PLACE, self.keep, write_s, VALUES_TOGETHER)
        self.notes: Line[Noted, Any] = Line(PLACE, self.note, write_s)
        self.purge_at_s = monotonic() + PURGE_EVERY_S

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        """Value and expiry by this process's clock, or None."""
        found = await self.reads.ask(key)
        return (found[0], expiry_s(found[1])) if found is not None else None

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        """Keep a value, unless its fence is not that of the last lease on `key`."""
        await self.values.ask(Put(key, value, expires_s, fence))

    async def drop(self, key: bytes) -> None:
        """Forget a value."""
        await self.notes.ask(Drop(key))

    async def lease(self, key: bytes, ttl_s: float) -> int | None:
        """A fencing number, or None while somebody else holds one."""
        fence: int | None = await self.notes.ask(Lease(key, ttl_s))
        return fence

    async def release(self, key: bytes, fence: int) -> None:
        """End a lease early."""
        await self.notes.ask(Release(key, fence))

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        """Add a row to a log; it is on the server's disk when this returns."""
        await self.notes.ask(Append(log, row, expires_s))

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        """Rows behind `position`."""
        found: list[tuple[int, bytes]] = await self.notes.ask(Since(log, position, limit))
        return found

    async def close(self) -> None:
        """Give the connections back."""
        for line in (self.reads, self.values, self.notes):
            await line.close()
        for session in (self.reading, self.keeping, self.noting):
            await session.close()

    # --- what the lines carry

    async def read(self, keys: list[bytes]) -> Sequence[tuple[bytes, float] | None]:
        """All values asked for, in one statement."""
        async with self.reading as database:
            found = await rows.values(database, keys)
        return [found.get(key) for key in keys]

    async def keep(self, puts: list[Put]) -> Sequence[None]:
        """Those without a fence, then those with one; what is left of a lifetime is told when it is sent."""
        plain = {put.key: (put.value, left_s(put.expires_s)) for put in puts if not put.fence}
        fenced = {(put.key, put.fence): (put.value, left_s(put.expires_s)) for put in puts if put.fence}
        async with self.keeping as database:
            if plain:
                await rows.keep(database, plain)
            if fenced:
                await rows.keep_fenced(database, fenced)
            if monotonic() > self.purge_at_s:
                self.purge_at_s = monotonic() + PURGE_EVERY_S
                await rows.purge(database)
        return [None] * len(puts)

    async def note(self, asked: list[Noted]) -> Sequence[Any]:
        """Each kind in turn; of two who want one lease, the first gets it."""
        first = {each.key: each for each in reversed(asked) if isinstance(each, Lease)}
        async with self.noting as database:
            await self.change(database, asked)
            granted = await rows.lease(database, {key: each.ttl_s for key, each in first.items()}) if first else {}
            return [await self.told(database, each, first, granted) for each in asked]

    async def told(
        self, database: asyncpg.Connection[Any], each: Noted, first: Mapping[bytes, Lease], granted: Mapping[bytes, int]
    ) -> int | list[tuple[int, bytes]] | None:
        """The reply to one."""
        match each:
            case Since(log, position, limit):
                return await rows.since(database, log, position, limit)
            case Lease(key) if first[key] is each:
                return granted.get(key)
            case _:
                return None

    async def change(self, database: asyncpg.Connection[Any], asked: list[Noted]) -> None:
        """Rows to add, leases to end, values to forget."""
        if appended := [(each.log, each.row, left_s(each.expires_s)) for each in asked if isinstance(each, Append)]:
            await rows.append(database, appended)
        if released := [each for each in asked if isinstance(each, Release)]:
            await rows.release(database, released)
        if dropped := [each.key for each in asked if isinstance(each, Drop)]:
            await rows.drop(database, dropped)
