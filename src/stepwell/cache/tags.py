"""What was invalidated: tags with epochs, compared when an answer is read.

Every answer carries its tags and the position of the log `events` at which its making began; an event that names one of
them behind that position invalidates it. A bump is one row of the log: no index leads from tags to answers. Positions,
not clocks, say what came first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic, time

import msgspec

from stepwell.cache.rows import EVENTS, LABELS, Event, encode
from stepwell.errors import StoreError
from stepwell.protocols import Store
from stepwell.types import Label

log = logging.getLogger(__name__)

POLL_S = 0.25
ROWS_A_POLL = 1000
BLIND_S = 10.0
"""Where others share the store, answers in memory are trusted so long while its events cannot be read."""
BLIND = -1
"""The version of a table that is too old to be trusted."""
MANY_TAGS = 10_000
"""From here on, tags whose events have expired are forgotten."""

decode = msgspec.msgpack.Decoder(Event).decode


class Tags:
    """The last event of each tag, as far as this process has read the log."""

    def __init__(self, store: Store | None, *, keep_s: float, shared: bool) -> None:
        """`keep_s`: the longest that any answer lives; `shared`: other processes may bump, too."""
        self.store, self.keep_s, self.shared = store, keep_s, shared
        self.last: dict[str, tuple[int, float]] = {}
        """Position and expiry by tag."""
        self.unseen: dict[bytes, str] = {}
        """Tags bumped here whose rows have not come back in the log, by row: nothing that carries one is alive."""
        self.position = 0
        self.version = 0
        """Changes with every event: an answer found alive at this version is alive."""
        self.num_events = 0
        self.read_s = monotonic()
        self.replayed = store is None
        self.polling: asyncio.Task[None] | None = None

    def dead(self, tags: Iterable[str], position: int) -> bool:
        """Say whether something that was begun at `position` has been invalidated since."""
        last = self.last
        if self.unseen and not set(self.unseen.values()).isdisjoint(tags):
            return True
        return any(tag in last and last[tag][0] > position for tag in tags)

    async def ready(self) -> None:
        """Read the events of the past, once, and go on reading. Raises StoreError."""
        if self.replayed:
            return
        if self.polling is None:
            self.polling = asyncio.get_running_loop().create_task(self.poll())
        await self.read()

    async def bump(self, tag: str, reason: str = "", answer: bytes = b"") -> None:
        """Invalidate every answer that carries a tag: here at once, elsewhere within a second. Raises StoreError."""
        event = Event(tag, time(), answer, reason)
        self.apply(self.position + 1, event)
        if self.store is None:
            self.position += 1
            return
        row = encode(event)
        self.unseen[row] = tag
        try:
            await self.store.append(EVENTS, row, event.at_s + self.keep_s)
        except BaseException:
            del self.unseen[row]
            raise
        await self.read()

    async def read(self) -> None:
        """Read the log to its end. Raises StoreError."""
        assert self.store is not None  # noqa: S101 - there is no log in memory alone
        while rows := await self.store.since(EVENTS, self.position, ROWS_A_POLL):
            for position, row in rows:
                self.take(position, row)
        self.read_s, self.replayed = monotonic(), True
        self.version = self.num_events

    def take(self, position: int, row: bytes) -> None:
        """Take in one row; one that cannot be read names nothing."""
        if position <= self.position:
            return  # two read at once
        try:
            self.apply(position, decode(row))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("an event cannot be read (%s): left out", error)
        self.position = position
        self.unseen.pop(row, None)

    def apply(self, position: int, event: Event) -> None:
        """Note that a tag was invalidated."""
        self.last[event.tag] = (position, event.at_s + self.keep_s)
        self.num_events += 1
        self.version = self.num_events
        if len(self.last) > MANY_TAGS and self.num_events % MANY_TAGS == 0:
            now_s = time()
            self.last = {tag: held for tag, held in self.last.items() if held[1] > now_s}

    async def poll(self) -> None:
        """Read what others write, until closed; where that fails for long, trust nothing in memory."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.read()
            except StoreError as error:
                self.unread(error)
            except Exception:
                log.exception("the cache's events cannot be read")

    def unread(self, error: StoreError) -> None:
        """The log cannot be read: where others may have written to it, that is borne for a while only."""
        if self.shared and self.version != BLIND and monotonic() - self.read_s > BLIND_S:
            log.warning("the cache's events cannot be read (%s): answers in memory are not trusted", error)
            self.version = BLIND

    async def close(self) -> None:
        """Stop reading."""
        if self.polling is not None:
            self.polling.cancel()
            await asyncio.wait([self.polling])


def tag_of(answer: bytes) -> str:
    """The tag that one answer alone carries."""
    return f"answer:{answer.hex()}"


async def bump(store: Store, tag: str, keep_s: float, reason: str = "", answer: bytes = b"") -> None:
    """Invalidate a tag for every process; `keep_s` is the longest that any answer lives. Raises StoreError."""
    now_s = time()
    await store.append(EVENTS, encode(Event(tag, now_s, answer, reason)), now_s + keep_s)


async def report_bad(store: Store, answer: bytes, keep_s: float, label: Label, reason: str = "") -> None:
    """Kill an answer with all its keys, and remember it as a hard negative. Raises StoreError."""
    await bump(store, tag_of(answer), keep_s, reason or "reported bad", answer)
    await store.append(LABELS, encode(label), label.at_s + keep_s)
