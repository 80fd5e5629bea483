"""Keep-alive HTTP/1.1 connections to one server, on llhttp: one write a request, no task, no queue a frame."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from stepwell.errors import EngineBadReply, EngineError, EngineTimeout, EngineUnavailable

HIGH_BYTES = 1024 * 1024
"""Unread bytes above which a reply is read no further until its reader has caught up."""


class Address(Struct, frozen=True):
    """Where a server listens, from its URL."""

    host: str
    port: int
    tls: bool
    path: str

    @property
    def host_header(self) -> str:
        """The Host header: with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def address_of(url: str) -> Address:
    """Take a URL apart; a slash at its end does not count."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Address(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))


class Patience(Struct, frozen=True):
    """How long to wait, in seconds: for a connection, for the first byte of a reply, for all of it."""

    connect_s: float
    first_byte_s: float
    total_s: float


class WentAway(EngineUnavailable):
    """The server closed the connection before it said anything."""


class Pool:
    """Connections to one server; a free one is used again, the youngest first. Callers wait in line for the rest."""

    def __init__(self, address: Address, patience: Patience, limit: int) -> None:
        self.address, self.patience, self.limit = address, patience, limit
        self.free: list[Wire] = []
        self.wires: set[Wire] = set()
        self.num_opening = 0
        self.line: deque[asyncio.Future[None]] = deque()
        self.context = ssl.create_default_context() if address.tls else None

    async def ask(self, data: bytes) -> Reply:
        """Send a request and wait for the head of its reply.

        Raises EngineUnavailable, EngineTimeout, EngineBadReply. A connection that the server had closed while it was
        free is no failure: the request goes out once more on a new one.
        """
        wire = await self.taken()
        used_before = wire.used
        try:
            return await wire.ask(data, self.patience)
        except WentAway:
            if not used_before:
                raise
        wire = await self.opened()
        return await wire.ask(data, self.patience)

    async def taken(self) -> Wire:
        """A free connection, or a new one, or the next that becomes free."""
        while True:
            while self.free:
                wire = self.free.pop()
                if wire.usable():
                    return wire
            if len(self.wires) + self.num_opening < self.limit:
                return await self.opened()
            turn = asyncio.get_running_loop().create_future()
            self.line.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.next_in_line()
                raise

    async def opened(self) -> Wire:
        """A new connection. Raises EngineUnavailable and EngineTimeout."""
        address = self.address
        loop = asyncio.get_running_loop()
        self.num_opening += 1
        try:
            opening = loop.create_connection(
                lambda: Wire(self),
                address.host,
                address.port,
                ssl=self.context,
                server_hostname=address.host if self.context else None,
            )
            _, wire = await asyncio.wait_for(opening, self.patience.connect_s)
        except TimeoutError as error:
            self.next_in_line()
            raise EngineTimeout(f"no connection within {self.patience.connect_s:g} s") from error
        except (OSError, ssl.SSLError) as error:
            self.next_in_line()
            raise EngineUnavailable(f"cannot connect to {address.host}:{address.port} ({error})") from error
        finally:
            self.num_opening -= 1
        self.wires.add(wire)
        return wire

    def give_back(self, wire: Wire) -> None:
        """A reply is read to its end: its connection is free again."""
        self.free.append(wire)
        self.next_in_line()

    def lost(self, wire: Wire) -> None:
        """A connection is gone: there is room for another."""
        self.wires.discard(wire)
        self.next_in_line()

    def next_in_line(self) -> None:
        """Wake the caller who waits longest."""
        while self.line:
            turn = self.line.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def close(self) -> None:
        """Close every connection."""
        for wire in tuple(self.wires):
            wire.transport.close()
        await asyncio.sleep(0)


class Wire(asyncio.Protocol):
    """One connection: the reply to one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.used = self.closed = self.paused = False
        self.busy = False
        self.begin()

    def begin(self) -> None:
        """Forget the last reply."""
        self.parser: Any = httptools.HttpResponseParser(self)
        self.headers: dict[bytes, bytes] = {}
        self.pieces: deque[bytes] = deque()
        self.unread_bytes = 0
        self.head_read = self.complete = self.heard = False
        self.failure: EngineError | None = None

    def usable(self) -> bool:
        """Say whether another request may be sent on it."""
        return not (self.closed or self.transport.is_closing())

    async def ask(self, data: bytes, patience: Patience) -> Reply:
        """Send a request, wait for the head of the reply."""
        self.begin()
        self.busy = True
        self.timer = self.loop.call_later(
            patience.first_byte_s, self.late, f"no byte within {patience.first_byte_s:g} s"
        )
        self.transport.write(data)
        try:
            while not self.head_read:
                await self.more()
        except BaseException:
            self.drop()
            raise
        self.timer.cancel()
        rest_s = patience.total_s
        self.timer = (
            self.loop.call_later(rest_s, self.late, f"not complete within {rest_s:g} s") if not self.complete else None
        )
        self.used = True
        return Reply(self, self.parser.get_status_code(), self.headers)

    async def more(self) -> None:
        """Wait until something new has arrived. Raises what the connection failed with."""
        if self.failure is not None:
            raise self.failure
        self.waiting = self.loop.create_future()
        await self.waiting
        if self.failure is not None and not self.pieces:
            raise self.failure

    def release(self) -> None:
        """The reply is read: keep the connection where the server does, too."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.busy:
            return
        self.busy = False
        if self.complete and not self.closed and self.parser.should_keep_alive():
            self.pool.give_back(self)
        else:
            self.transport.close()

    def drop(self) -> None:
        """Nobody reads the rest of the reply: hang up, so that the server stops working on it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.busy = False
        self.transport.abort()

    def late(self, what: str) -> None:
        """A time limit has passed."""
        self.fail(EngineTimeout(what))
        self.transport.abort()

    def fail(self, error: EngineError) -> None:
        """Remember the first failure, and tell whoever waits."""
        self.failure = self.failure or error
        self.wake()

    def wake(self) -> None:
        """Tell whoever waits that something is new."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what came; anything that nobody asked for ends the connection."""
        self.heard = True
        if not self.busy:
            self.transport.abort()
            return
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(EngineBadReply(f"not an HTTP/1.1 reply: {error}"))
            self.transport.abort()
            return
        self.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The reply is over, rightly or not."""
        self.closed = True
        until_close = self.head_read and not self.headers.keys() & {b"content-length", b"transfer-encoding"}
        if self.busy and until_close and exc is None:
            self.complete = True
            self.wake()
        elif self.busy and not self.complete:
            gone = "the server closed the connection"
            self.fail(EngineBadReply(f"{gone} in mid-reply") if self.heard else WentAway(f"{gone} without a reply"))
        self.pool.lost(self)

    # --- the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there; after an informational one (1xx) another follows."""
        if self.parser.get_status_code() >= 200:  # noqa: PLR2004
            self.head_read = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.pieces.append(data)
        self.unread_bytes += len(data)
        if self.unread_bytes > HIGH_BYTES and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """The reply is whole."""
        self.complete = self.head_read


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
                self.read_on()
                await wire.more()
        except BaseException:
            wire.drop()
            raise
        whole = wire.pieces[0] if len(wire.pieces) == 1 else b"".join(wire.pieces)
        wire.release()
        return whole

    async def pieces(self) -> AsyncIterator[bytes]:
        """Piece by piece as it arrives; closing early hangs up. Raises EngineError where it breaks off."""
        wire = self.wire
        try:
            while True:
                while wire.pieces:
                    piece = b"".join(wire.pieces) if len(wire.pieces) > 1 else wire.pieces[0]
                    wire.pieces.clear()
                    self.read_on()
                    yield piece
                if wire.complete:
                    break
                await wire.more()
        finally:
            if wire.complete:
                wire.release()
            else:
                wire.drop()

    def read_on(self) -> None:
        """The reader has caught up."""
        self.wire.unread_bytes = 0
        if self.wire.paused:
            self.wire.paused = False
            self.wire.transport.resume_reading()
