"""A Store in one SQLite file: reads at once, writes in batches by one thread, shared by several processes.

`put` and `append` return at once and are on disk within `flush_ms`. What must hold for everybody when it returns
(`drop`, `lease`, `release`, `put` with a fence) wakes the thread and waits for its commit. A damaged file is moved
aside and begun anew; a full disk costs the new values only, and rows of logs wait until there is room.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

from stepwell.errors import StoreError
from stepwell.store import sqlite_rows as rows
from stepwell.store.clock import Clock
from stepwell.store.sqlite_file import is_damage, opened_twice

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 * 1024 * 1024
PATIENCE_S = 2.0
"""How long a caller waits for the thread to commit what cannot wait."""
TIDY_EVERY_S = 5.0

Held = tuple[bytes, float]


@dataclass(slots=True)
class Order:
    """What somebody waits for: a piece of the next transaction, and where its result goes."""

    run: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]

    def deliver(self, result: Any, error: Exception | None) -> None:  # noqa: ANN401 - whatever `run` returns
        """Hand the result over, in the caller's own loop."""
        with suppress(RuntimeError):  # that loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(settle, self.answer, result, error)


@dataclass(slots=True)
class Batch:
    """What goes into one transaction."""

    kept: dict[bytes, Held] = field(default_factory=dict)
    logged: list[rows.Logged] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    num_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.kept or self.logged or self.orders)


class Sqlite:
    """A Store; see the file's head for what is durable when."""

    name = "sqlite"

    def __init__(self, path: str | Path, *, limit_bytes: int, flush_ms: int) -> None:
        """Open or create the file. Raises StoreError where the folder cannot be written."""
        self.path, self.limit_bytes, self.flush_s = Path(path), limit_bytes, flush_ms / 1000
        self.clock = Clock()
        self.lock, self.woken = Lock(), Event()
        self.waiting, self.writing = Batch(), Batch()
        self.closing = self.suspect = self.complained = False
        self.reader, self.database = opened_twice(self.path)
        self.inode, self.tidied_s = self.path.stat().st_ino, monotonic()
        self.retired: list[sqlite3.Connection] = []
        self.writer = Thread(target=self.write_on, name="cache writer", daemon=True)
        self.writer.start()

    async def get(self, key: bytes) -> Held | None:
        """Value and expiry, or None; a value whose checksum is wrong is as good as none."""
        now_s, ahead_s = self.clock.both_s()
        held = self.waiting.kept.get(key) or self.writing.kept.get(key)
        if held is None:
            try:
                held = rows.value(self.reader, key, now_s)
            except sqlite3.Error as error:
                raise self.failed(error) from error
        return (held[0], held[1] - ahead_s) if held is not None and held[1] > now_s else None

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        """Take a value along with the next batch; where too much is waiting, it is let go."""
        expires_s += self.clock.ahead_s()
        if fence:
            await self.ordered(lambda database: rows.keep_fenced(database, key, value, expires_s, fence))
            return
        with self.lock:
            if self.waiting.num_bytes + len(value) <= MAX_WAITING_BYTES:
                self.waiting.kept[key] = (value, expires_s)
                self.waiting.num_bytes += len(value)

    async def drop(self, key: bytes) -> None:
        """Forget a value."""
        with self.lock:
            self.waiting.kept.pop(key, None)
        await self.ordered(lambda database: rows.drop(database, key))

    async def lease(self, key: bytes, ttl_s: float) -> int | None:
        """A fencing number, or None while somebody else holds one."""
        now_s = self.clock.now_s()
        fence: int | None = await self.ordered(lambda database: rows.lease(database, key, now_s, now_s + ttl_s))
        return fence

    async def release(self, key: bytes, fence: int) -> None:
        """End a lease early."""
        now_s = self.clock.now_s()
        await self.ordered(lambda database: rows.release(database, key, fence, now_s))

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        """Take a row along with the next batch. Raises StoreError where too much is waiting."""
        with self.lock:
            if self.waiting.num_bytes + len(row) > MAX_WAITING_BYTES:
                raise StoreError(f"the cache file {self.path} takes nothing, and no more rows can wait for it")
            self.waiting.logged.append((log, row, expires_s + self.clock.ahead_s()))
            self.waiting.num_bytes += len(row)

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        """Rows behind `position`; one whose checksum is wrong is left out."""
        try:
            return rows.since(self.reader, log, position, limit, self.clock.now_s())
        except sqlite3.Error as error:
            raise self.failed(error) from error

    async def close(self) -> None:
        """Write what is waiting, and close the file."""
        self.closing = True
        self.woken.set()
        await asyncio.to_thread(self.writer.join)
        for connection in (self.reader, self.database, *self.retired):
            connection.close()

    async def ordered(self, run: Callable[[sqlite3.Connection], Any]) -> Any:  # noqa: ANN401 - whatever `run` returns
        """Have the thread run something in a transaction, and wait for its commit. Raises StoreError."""
        if self.closing:
            raise StoreError(f"the cache file {self.path} is closed")
        loop = asyncio.get_running_loop()
        order = Order(run, loop, loop.create_future())
        with self.lock:
            self.waiting.orders.append(order)
        self.woken.set()
        late = StoreError(f"the cache file {self.path} did not take a change within {PATIENCE_S:g} s")
        timer = loop.call_later(PATIENCE_S, settle, order.answer, None, late)
        try:
            return await order.answer
        finally:
            timer.cancel()

    def failed(self, error: sqlite3.Error) -> StoreError:
        """Have the thread look at a file that may be damaged; say what is wrong."""
        if is_damage(error):
            self.suspect = True
            self.woken.set()
        return StoreError(f"the cache file {self.path} cannot be read: {error}")

    # --- the writer thread

    def write_on(self) -> None:
        """Write a batch every `flush_s`, or sooner where somebody waits, until closed."""
        last = False
        while not last:
            self.woken.wait(self.flush_s)
            self.woken.clear()
            last = self.closing
            try:
                self.flush()
            except Exception:
                log.exception("the cache file %s lost a batch", self.path)

    def flush(self) -> None:
        """Write all that waits, in one transaction; a disk that refuses costs this batch, nothing else."""
        with self.lock:
            self.writing, self.waiting = self.waiting, Batch()
        batch, results, failed = self.writing, None, None
        try:
            results = self.commit(batch)
            self.complained = False
        except (sqlite3.Error, OSError, StoreError) as error:
            failed = StoreError(f"the cache file {self.path} takes nothing: {error}")
            self.complain(error, batch)
        self.writing = Batch()
        for order, result in zip(batch.orders, results or [None] * len(batch.orders), strict=True):
            order.deliver(result, failed)
        if batch and failed is None:
            self.tidy()

    def commit(self, batch: Batch) -> list[Any]:
        """Write a batch; where that shows the file to be damaged, once more into the one that takes its place."""
        self.look_after_file()
        try:
            return self.write(batch)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self.suspect = True
            self.look_after_file()
            return self.write(batch)

    def write(self, batch: Batch) -> list[Any]:
        """One transaction. Orders that nobody waits for any more are left out."""
        if not batch:
            return []
        with rows.transaction(self.database) as database:
            rows.keep(database, batch.kept)
            rows.log(database, batch.logged)
            return [None if order.answer.done() else order.run(database) for order in batch.orders]

    def tidy(self) -> None:
        """Now and then forget what is long over; keep the file within its limit."""
        try:
            if monotonic() - self.tidied_s > TIDY_EVERY_S:
                self.tidied_s = monotonic()
                rows.purge(self.database, self.clock.now_s())
            rows.shrink(self.database, self.limit_bytes)
        except sqlite3.Error as error:
            self.complain(error, Batch())

    def look_after_file(self) -> None:
        """Open the file again where it is suspected of damage, or no longer the one at its path. Raises StoreError."""
        if not self.suspect and self.path.exists() and self.path.stat().st_ino == self.inode:
            return
        self.retired += [self.reader, self.database]
        self.reader, self.database = opened_twice(self.path, suspect=self.suspect)
        self.inode, self.suspect = self.path.stat().st_ino, False

    def complain(self, error: Exception, batch: Batch) -> None:
        """A cache that fails is a slow cache, not a failed request: say so once, and try rows of logs again."""
        self.suspect = self.suspect or is_damage(error)
        with self.lock:
            self.waiting.logged[:0] = batch.logged
            self.waiting.num_bytes += sum(len(row) for _, row, _ in batch.logged)
        if not self.complained:
            self.complained = True
            log.warning("the cache file %s takes nothing (%s); answers are kept in memory only", self.path, error)


def settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:  # noqa: ANN401 - any result
    """Fulfil a future that nobody has given up."""
    if not answer.done():
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
