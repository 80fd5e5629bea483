"""A stream that several read at once, each from its start and at its own pace: one source, a replay buffer, readers.

The source is read as fast as the fastest reader reads. The buffer is bounded: of a longer stream only the newest part
is kept; nobody can begin to read it any more, and a reader who falls behind that part is cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from stepwell.drive import Baton
from stepwell.errors import EngineBadReply
from stepwell.protocols import Chunks, Direct
from stepwell.types import Chunk, Usage

AHEAD_BYTES = 64 * 1024
"""How far the source may be ahead of the fastest reader."""


class Live:
    """The buffer. Everything here happens in one event loop, in the very call that brings a chunk."""

    __slots__ = (
        "at_bytes",
        "chunks",
        "complete",
        "ends",
        "error",
        "furthest_bytes",
        "hurried",
        "kept_bytes",
        "large",
        "limit_bytes",
        "loop",
        "num_gone",
        "over",
        "parked",
        "usage",
        "waiting",
    )

    def __init__(self, limit_bytes: int, ends: list[Baton]) -> None:
        """`ends`: woken when the stream proves too large to be kept whole."""
        self.ends = ends
        self.large = False
        """Longer than the buffer: nobody can begin to read it any more."""
        self.limit_bytes = max(limit_bytes, 2 * AHEAD_BYTES)
        self.loop = asyncio.get_running_loop()
        self.chunks: deque[Chunk] = deque()
        self.num_gone = 0
        """Chunks that were let go at the front."""
        self.kept_bytes = self.at_bytes = self.furthest_bytes = 0
        self.usage: Usage | None = None
        self.over = self.complete = False
        self.error: Exception | None = None
        self.waiting: list[Baton] = []
        self.parked: Baton | None = None
        self.hurried = False
        """True while somebody waits for the whole: then the source waits for no reader, up to the limit."""

    async def fill(self, source: Chunks) -> None:
        """Read a source to its end mark. Raises what it raises, or EngineBadReply where there is no end mark."""
        if isinstance(source, Direct):
            source.direct(self.took)
        try:
            async for chunk in source:
                self.add(chunk)
                if chunk.last:
                    return
                while self.is_ahead():
                    self.parked = Baton(self.loop)
                    await self.parked
            raise EngineBadReply("the stream ended before its end mark")
        finally:
            await source.aclose()

    def is_ahead(self) -> bool:
        """Say whether the source shall wait."""
        return self.at_bytes - self.furthest_bytes > AHEAD_BYTES and (self.large or not self.hurried)

    def took(self, words: bytes) -> bool:
        """Take words in the very call that brings them (`protocols.Take`)."""
        if self.is_ahead():
            return False
        self.add(Chunk(words))
        return True

    def add(self, chunk: Chunk) -> None:
        """Take a chunk, and wake whoever waits for it; the last one wakes nobody: `end` does."""
        num_bytes = len(chunk.data)
        self.chunks.append(chunk)
        self.at_bytes += num_bytes
        self.kept_bytes += num_bytes
        self.usage = chunk.usage or self.usage
        self.complete = chunk.last
        if self.kept_bytes > self.limit_bytes:
            self.let_go()
        if not chunk.last:
            wake(self.waiting)

    def let_go(self) -> None:
        """Forget what at least the fastest reader has read, down to the limit."""
        if not self.large:
            self.large = True
            wake(self.ends)
        chunks = self.chunks
        gone_bytes = self.at_bytes - self.kept_bytes
        while self.kept_bytes > self.limit_bytes and gone_bytes + len(chunks[0].data) <= self.furthest_bytes > 0:
            num_bytes = len(chunks.popleft().data)
            self.num_gone += 1
            self.kept_bytes -= num_bytes
            gone_bytes += num_bytes

    def end(self, error: Exception | None = None) -> None:
        """No more will come."""
        self.over, self.error = True, error
        wake(self.waiting)

    def unpark(self) -> None:
        """Let the source go on: somebody has read."""
        parked, self.parked = self.parked, None
        if parked is not None:
            parked.pass_on()

    def body(self) -> bytes:
        """All of it; meaningful only while nothing was let go."""
        return b"".join(chunk.data for chunk in self.chunks)


class Reader:
    """One who reads (`protocols.Chunks`), from chunk `at` on; `left` is called once, when it wants no more."""

    __slots__ = ("at", "baton", "left", "live", "read_bytes")

    def __init__(self, live: Live, left: Callable[[], None]) -> None:
        self.live, self.left = live, left
        self.at = self.read_bytes = 0
        self.baton = Baton(live.loop)

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Chunk:
        live = self.live
        while self.at >= live.num_gone + len(live.chunks):
            if live.over:
                if live.error is not None:
                    raise live.error
                raise StopAsyncIteration
            if live.parked is not None:
                live.unpark()
                continue
            live.waiting.append(self.baton)
            await self.baton
        return self.take()

    def take(self) -> Chunk:
        """The next chunk; what has gathered of plain words comes as one."""
        live = self.live
        place = self.at - live.num_gone
        if place < 0:
            raise EngineBadReply("this caller reads too slowly: the answer has gone on without it")
        chunk = live.chunks[place]
        self.at += 1
        if self.at < live.num_gone + len(live.chunks) and chunk.usage is None and not chunk.last:
            chunk = self.gathered(chunk)
        self.read_bytes += len(chunk.data)
        live.furthest_bytes = max(live.furthest_bytes, self.read_bytes)
        return chunk

    def gathered(self, first: Chunk) -> Chunk:
        """Join the plain chunks that are there already: who comes late catches up in one write."""
        live, pieces, num_bytes = self.live, [first.data], len(first.data)
        while num_bytes < AHEAD_BYTES and self.at < live.num_gone + len(live.chunks):
            chunk = live.chunks[self.at - live.num_gone]
            if chunk.usage is not None or chunk.last:
                break
            pieces.append(chunk.data)
            num_bytes += len(chunk.data)
            self.at += 1
        return Chunk(b"".join(pieces))

    async def aclose(self) -> None:
        """Want no more of it."""
        left, self.left = self.left, nobody
        left()


def nobody() -> None:
    """Nobody is to be told."""


async def waiting(batons: list[Baton]) -> None:
    """Wait to be woken, together with others."""
    baton = Baton(asyncio.get_running_loop())
    batons.append(baton)
    await baton


def wake(batons: list[Baton]) -> None:
    """Wake all who wait, in the order they came."""
    woken = batons[:]
    batons.clear()
    for baton in woken:
        baton.pass_on()
