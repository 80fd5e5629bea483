"""One kept HTTP/1.1 connection, on llhttp: one write a request, no task, no coroutine that wakes for a frame."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import httptools

from stepwell.drive import Baton
from stepwell.errors import EngineBadReply, EngineError, EngineTimeout, EngineUnavailable

if TYPE_CHECKING:
    from stepwell.engines.pool import Pool

EBB_S = 1.0
"""How long the end of a body may take after all that matters in it has been read."""
HIGH_BYTES = 1024 * 1024
"""Unread bytes above which a reply is read no further until its reader has caught up."""


Lane = Callable[[bytes], bool]
"""Takes a piece of a body at once, or leaves it to the reader."""


class WentAway(EngineUnavailable):
    """The server closed the connection before it said anything."""


class Wire(asyncio.Protocol):
    """One connection: the reply to one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.baton = Baton(self.loop)
        self.deadline_s = self.ends_at_s = 0.0
        self.used = self.closed = self.paused = self.busy = False
        self.pieces: deque[bytes] = deque()
        self.on_body = self.pieces.append
        self.parser: Any = httptools.HttpResponseParser(self)  # looks its callbacks up now, and only now
        self.begin()

    def begin(self) -> None:
        """Forget the last reply."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces.clear()
        self.unread_bytes = 0
        self.heard = self.head_read = self.body_begun = self.complete = self.kept_alive = self.ebbing = False
        self.lane: Lane | None = None
        self.failure: EngineError | None = None

    async def ask(self, data: bytes) -> Reply:
        """Send a request, wait for the head of the reply."""
        if self.closed:
            raise WentAway("the server closed the connection at once")
        self.begin()
        self.wait_from_now()
        self.transport.write(data)
        try:
            while not self.head_read:
                await self.baton
                self.check()
        except BaseException:
            self.hang_up()
            raise
        self.used = True
        return Reply(self, self.status, self.headers)

    def wait_from_now(self) -> None:
        """Begin to wait for a reply, no longer than the pool has patience."""
        pool, now_s = self.pool, monotonic()
        self.ends_at_s = now_s + pool.patience.total_s
        self.deadline_s = min(now_s + pool.patience.first_byte_s, self.ends_at_s)
        self.busy = True
        pool.watch_over(self)

    def release(self) -> None:
        """The reply is read: keep the connection where the server does, too."""
        if not self.busy:
            return
        if not self.kept_alive or self.closed:
            self.hang_up()
            return
        self.busy = False
        self.pool.busy.discard(self)
        self.read_on()
        self.pool.pass_on(self)

    def ebb(self) -> None:
        """All that matters is read, but not the end of the body: let it come, for a moment and unread."""
        self.ebbing = True
        self.deadline_s = monotonic() + EBB_S
        self.read_on()

    def hang_up(self) -> None:
        """Close at once: nobody reads the rest, and the server shall stop working on it."""
        self.busy = False
        self.pool.lost(self)
        if self.transport is not None:
            self.transport.abort()

    def read_on(self) -> None:
        """The reader has caught up."""
        self.unread_bytes = 0
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    def quiet(self) -> bool:
        """True where nothing has happened that a reader could take, and something still may."""
        return not (self.pieces or self.complete or self.failure)

    def check(self) -> None:
        """Raise what the connection failed with, if it did."""
        if self.failure is not None:
            raise self.failure

    def late(self) -> None:
        """A time limit has passed."""
        patience = self.pool.patience
        if self.ebbing:
            self.hang_up()
        elif self.body_begun or patience.total_s < patience.first_byte_s:
            self.fail(EngineTimeout(f"not complete within {patience.total_s:g} s"))
        else:
            self.fail(EngineTimeout(f"no byte within {patience.first_byte_s:g} s"))

    def fail(self, error: EngineError) -> None:
        """Remember the first failure, hang up, and tell whoever waits."""
        self.failure = self.failure or error
        self.hang_up()
        self.baton.pass_on()

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what came; anything that nobody asked for ends the connection."""
        if not self.busy:
            self.hang_up()
            return
        self.heard = True
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.kept_alive = False
            if not self.complete:
                self.fail(EngineBadReply(f"not an HTTP/1.1 reply: {error}"))
                return
        pieces = self.pieces
        if self.lane is not None and len(pieces) == 1 and not self.complete and self.lane(pieces[0]):
            pieces.clear()
        elif self.ebbing:
            pieces.clear()
            if self.complete:
                self.release()
        else:
            self.arrived(len(data))

    def arrived(self, num_bytes: int) -> None:
        """Wake the reader; hold the server back where its reader does not keep up."""
        if self.pieces and not self.body_begun:
            self.body_begun = True
            self.deadline_s = self.ends_at_s
        self.unread_bytes += num_bytes
        self.baton.pass_on()
        if self.unread_bytes > HIGH_BYTES and not (self.paused or self.transport.is_closing()):
            self.paused = True
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The reply is over, rightly or not."""
        self.closed = True
        was_busy = self.busy
        self.pool.lost(self)
        if not was_busy or self.complete:
            return
        if exc is None and self.head_read and not self.headers.keys() & {b"content-length", b"transfer-encoding"}:
            self.complete = True
            self.baton.pass_on()
            return
        gone = "the server closed the connection"
        self.fail(EngineBadReply(f"{gone} in mid-reply") if self.heard else WentAway(f"{gone} without a reply"))

    # --- the parser's side

    def on_message_begin(self) -> None:
        """A reply begins; a second one to the same request is none of ours, whatever it says."""
        if self.head_read:
            raise EngineBadReply("a second reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there; after an informational one (1xx) another follows."""
        self.status = self.parser.get_status_code()
        self.head_read = self.status >= 200  # noqa: PLR2004

    def on_message_complete(self) -> None:
        """The reply is whole."""
        self.complete = self.head_read
        self.kept_alive = self.parser.should_keep_alive()  # the parser forgets it after this call


class Reply:
    """A reply whose head is there. Read it to its end, or `close` it."""

    __slots__ = ("headers", "status", "wire")

    def __init__(self, wire: Wire, status: int, headers: dict[bytes, bytes]) -> None:
        self.wire, self.status, self.headers = wire, status, headers

    async def body(self) -> bytes:
        """All of it. Raises EngineError where it breaks off."""
        wire = self.wire
        try:
            while not wire.complete:
                wire.check()
                wire.read_on()
                await wire.baton
        except BaseException:
            wire.hang_up()
            raise
        whole = wire.pieces[0] if len(wire.pieces) == 1 else b"".join(wire.pieces)
        wire.release()
        return whole

    def take(self) -> bytes:
        """What has arrived since the last call; empty where that is nothing. Raises EngineError where it broke off."""
        wire = self.wire
        pieces = wire.pieces
        if not pieces:
            if not wire.complete:
                wire.check()
            return b""
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        wire.read_on()
        return piece

    def close(self, *, read: bool = False) -> None:
        """Want no more of it: hang up, unless it is whole or, with `read`, nothing but its end is missing."""
        wire = self.wire
        if wire.complete:
            wire.release()
        elif read and wire.busy:
            wire.ebb()
        elif wire.busy:
            wire.hang_up()
