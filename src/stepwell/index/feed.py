"""How the log of keys becomes an index: all of it at the start, then whatever was added since, by any process."""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256
from pathlib import Path
from time import time

import msgspec

from stepwell.index import snapshot
from stepwell.index.index import Index
from stepwell.index.rows import KEYS, decode
from stepwell.protocols import Store

log = logging.getLogger(__name__)

ROWS_A_TURN = 500
"""Rows read at once; between two readings whoever else waits for the event loop has its turn."""


class Feed:
    """One index and the log it follows; with a `file`, the index is kept there between starts."""

    def __init__(self, store: Store, file: Path | None = None) -> None:
        self.store, self.file = store, file
        self.index = Index()
        self.position = 0
        self.last = b""
        """The row at that position."""
        self.saved = 0
        """The position of the last snapshot."""
        self.num_refused = 0
        self.begun = False
        self.turn = asyncio.Lock()

    async def follow(self) -> int:
        """Take every row behind the last one; say how many there were. Raises StoreError, and may be called again."""
        num_rows = 0
        async with self.turn:
            await self.begin()
            while rows := await self.store.since(KEYS, self.position, ROWS_A_TURN):
                self.take(rows)
                num_rows += len(rows)
                await asyncio.sleep(0)
        self.index.grow()
        return num_rows

    async def begin(self) -> None:
        """Once, start from the snapshot: if the log has, where that stands, the row that it ends with."""
        if self.begun:
            return
        found = await asyncio.to_thread(snapshot.load, self.file) if self.file is not None else None
        if found is not None:
            row = await self.store.since(KEYS, found.position - 1, 1)
            if [(position, sha256(each).digest()) for position, each in row] == [(found.position, found.row)]:
                self.begin_from(found)
            else:
                log.warning("the snapshot %s is of another log: the index is read anew", self.file)
        self.begun = True

    def begin_from(self, found: snapshot.Snapshot) -> None:
        """Take over a snapshot, unless its parts do not fit."""
        try:
            self.index = snapshot.index_of(found)
        except (ValueError, KeyError) as error:
            log.warning("the snapshot %s cannot be used (%s): the index is read from the log", self.file, error)
            return
        self.position = found.position
        self.sweep()

    def take(self, rows: list[tuple[int, bytes]]) -> None:
        """Add rows; one that cannot be used is passed over, once and for all, and the log says so."""
        self.position, self.last = rows[-1]
        read, refused = [], []
        for position, row in rows:
            try:
                read.append((position, decode(row)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                refused.append(f"key {position} cannot be read ({error})")
        for wrong in refused + self.index.add(read):
            self.num_refused += 1
            log.warning("%s: passed over", wrong)

    def sweep(self) -> int:
        """Forget what has expired; say how many keys that were."""
        return self.index.sweep(time())

    async def save(self) -> None:
        """Keep the index for the next start, where there is a place and something new; a full disk costs only that."""
        if self.file is None or not self.last or self.position == self.saved:
            return
        self.saved = self.position
        found = snapshot.taken(self.index, self.position, sha256(self.last).digest())
        try:
            await asyncio.to_thread(snapshot.save, self.file, found)
        except OSError as error:
            log.warning("the snapshot %s cannot be written (%s)", self.file, error)
