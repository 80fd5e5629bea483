"""The book: makes an entry of every request, and hands them in batches to the scribe, which writes them.

Entries are made some at a time: code that runs over and over stays in the processor's caches, which was measured to
save a tenth of what an exact hit costs. Several processes may write to one file. While the disk refuses, entries wait
in memory; a kill loses at most the last `flush_ms`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import time

from stepwell.errors import StoreError
from stepwell.ledger.entry import Entry, entry
from stepwell.ledger.file import opened
from stepwell.ledger.pipe import COMMAND, Pipe
from stepwell.ledger.prices import Price
from stepwell.types import Settled, Visit

log = logging.getLogger(__name__)

BATCH = 1000
"""Entries handed over at once: what the event loop encodes in half a millisecond."""
AT_A_TIME = 64
"""Requests that are entered together."""
HEAVY_BYTES = 64 * 1024
"""A request this large, with its answer, is entered at once: it shall not wait in memory."""
RETRY_S = 1.0

Watch = Callable[[Entry, tuple[Visit, ...]], None]


class Book:
    """A settler that writes down every request. `watch` is told of each entry as it is made."""

    def __init__(
        self, path: str | Path, prices: Mapping[str, Price], *, flush_ms: int, max_waiting: int, watch: Watch
    ) -> None:
        """`prices`: the large model's price by route. Raises StoreError where the file cannot be opened."""
        self.path, self.prices, self.watch = Path(path), prices, watch
        self.flush_s, self.max_waiting = flush_ms / 1000, max_waiting
        self.settled: list[tuple[Settled, float]] = []
        """What is to be entered, and when it was over: seconds since 1970."""
        self.entries: deque[Entry] = deque()
        self.num_dropped = 0
        self.refused = False
        self.closing = asyncio.Event()
        opened(self.path).close()
        self.pipe = Pipe(COMMAND, str(self.path.absolute()))
        self.writing: asyncio.Task[None] | None = None

    def record(self, settled: Settled) -> None:
        """Note one request, for the next batch."""
        self.settled.append((settled, time()))
        heavy = len(settled.body) + len(settled.request.body) > HEAVY_BYTES
        if heavy or len(self.settled) >= AT_A_TIME:
            self.enter()
        if self.writing is None:
            self.writing = asyncio.get_running_loop().create_task(self.write_soon())

    def enter(self) -> None:
        """Make the entries of what was noted; one that cannot be made is lost, and said."""
        noted, self.settled = self.settled, []
        for settled, at_s in noted:
            try:
                made = entry(settled, self.prices[settled.request.model], at_s)
                self.watch(made, settled.outcome.visits)
            except Exception:  # one request that cannot be written down must not end the ledger
                self.num_dropped += 1
                log.exception("request %s cannot be written down", settled.request.id)
            else:
                self.entries.append(made)
        if len(self.entries) > self.max_waiting:
            self.let_go()

    def num_lost(self) -> int:
        """Enter what was noted; how many entries have been lost so far."""
        self.enter()
        return self.num_dropped

    async def close(self) -> None:
        """Write what is waiting, and close the file; what the disk still refuses is lost, and said."""
        self.closing.set()
        if self.writing is not None:
            await self.writing
        self.enter()  # what came while the last batch was on its way
        if self.entries:
            log.error("the ledger %s cannot be written: %d entries are lost", self.path, len(self.entries))
            self.num_dropped += len(self.entries)
            self.entries.clear()
        await self.pipe.close()

    async def write_soon(self) -> None:
        """Write what waits after `flush_s`, and again while the disk refuses it; at once when closing."""
        wait_s = self.flush_s
        while self.settled or self.entries:
            await self.pause(wait_s)
            written = await self.write()
            wait_s = self.flush_s if written else RETRY_S
            if self.closing.is_set() and not written:
                break
        self.writing = None

    async def pause(self, seconds: float) -> None:
        """Let entries gather; not when closing."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)

    async def write(self) -> bool:
        """Write what waits; where the disk refuses, the rest waits for the next time."""
        self.enter()
        while batch := self.next_batch():
            try:
                await self.pipe.write(batch)
            except StoreError as error:
                self.entries.extendleft(reversed(batch))
                self.complain(error)
                return False
        if self.refused:
            self.refused = False
            log.warning("the ledger %s is written again; %d entries were lost", self.path, self.num_dropped)
        return True

    def next_batch(self) -> list[Entry]:
        """Take the oldest entries."""
        return [self.entries.popleft() for _ in range(min(len(self.entries), BATCH))]

    def complain(self, error: Exception) -> None:
        """Say once that entries wait."""
        if not self.refused:
            self.refused = True
            log.error("the ledger %s cannot be written (%s): entries wait in memory", self.path, error)
        self.let_go()

    def let_go(self) -> None:
        """Lose the oldest entries where too many wait."""
        while len(self.entries) > self.max_waiting:
            self.entries.popleft()
            self.num_dropped += 1
