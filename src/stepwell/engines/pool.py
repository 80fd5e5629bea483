"""Keep-alive HTTP/1.1 connections to one server, on llhttp: one write a request, no task, no queue a frame."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from stepwell.drive import Baton
from stepwell.errors import EngineBadReply, EngineError, EngineTimeout, EngineUnavailable

WATCH_S = 0.1
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
        self.busy: set[Wire] = set()
        self.watching = False
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
            # a task, for wait_for needs one: see drive.py
            _, wire = await loop.create_task(asyncio.wait_for(opening, self.patience.connect_s))
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

    def watch(self) -> None:
        """Look at the time limits of all replies that are waited for, ten times a second while there are any."""
        now_s = monotonic()
        for wire in tuple(self.busy):
            if now_s > wire.deadline_s:
                wire.late()
        self.watching = bool(self.busy)
        if self.watching:
            asyncio.get_running_loop().call_later(WATCH_S, self.watch)

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
        self.baton = Baton(self.loop)
        self.deadline_s = 0.0
        self.used = self.closed = self.paused = False
        self.busy = False
        self.parser: Any = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Forget the last reply."""
        self.headers: dict[bytes, bytes] = {}
        self.pieces: deque[bytes] = deque()
        self.unread_bytes = 0
        self.head_read = self.complete = self.heard = self.kept_alive = False
        self.failure: EngineError | None = None
        self.late_what = ""

    def usable(self) -> bool:
        """Say whether another request may be sent on it."""
        return not (self.closed or self.transport.is_closing())

    async def ask(self, data: bytes, patience: Patience) -> Reply:
        """Send a request, wait for the head of the reply."""
        self.begin()
        self.set_busy(patience.first_byte_s)
        self.late_what = f"no byte within {patience.first_byte_s:g} s"
        self.transport.write(data)
        try:
            while not self.head_read:
                await self.baton
                self.check()
        except BaseException:
            self.drop()
            raise
        self.deadline_s = monotonic() + patience.total_s
        self.late_what = f"not complete within {patience.total_s:g} s"
        self.used = True
        return Reply(self, self.parser.get_status_code(), self.headers)

    def set_busy(self, limit_s: float) -> None:
        """Begin to wait for a reply, no longer than `limit_s`."""
        self.busy = True
        self.deadline_s = monotonic() + limit_s
        pool = self.pool
        pool.busy.add(self)
        if not pool.watching:
            pool.watching = True
            self.loop.call_later(WATCH_S, pool.watch)

    def release(self) -> None:
        """The reply is read: keep the connection where the server does, too."""
        if not self.busy:
            return
        self.busy = False
        self.pool.busy.discard(self)
        if self.complete and self.kept_alive and not self.closed:
            self.pool.give_back(self)
        else:
            self.transport.close()

    def drop(self) -> None:
        """Nobody reads the rest of the reply: hang up, so that the server stops working on it."""
        self.busy = False
        self.pool.busy.discard(self)
        self.transport.abort()

    def quiet(self) -> bool:
        """True where nothing has happened that a reader could take, and something still may."""
        return not (self.pieces or self.complete or self.failure)

    def check(self) -> None:
        """Raise what the connection failed with, if it did."""
        if self.failure is not None:
            raise self.failure

    def late(self) -> None:
        """A time limit has passed."""
        self.fail(EngineTimeout(self.late_what))
        self.transport.abort()

    def fail(self, error: EngineError) -> None:
        """Remember the first failure, and tell whoever waits."""
        self.failure = self.failure or error
        self.baton.pass_on()

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
        self.baton.pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The reply is over, rightly or not."""
        self.closed = True
        until_close = self.head_read and not self.headers.keys() & {b"content-length", b"transfer-encoding"}
        if self.busy and until_close and exc is None:
            self.complete = True
            self.baton.pass_on()
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
                self.read_on()
                await wire.baton
        except BaseException:
            wire.drop()
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
        self.read_on()
        return piece

    def close(self) -> None:
        """No more is wanted: give the connection back where the reply is whole, else hang up."""
        if self.wire.complete:
            self.wire.release()
        elif self.wire.busy:
            self.wire.drop()

    def read_on(self) -> None:
        """The reader has caught up."""
        self.wire.unread_bytes = 0
        if self.wire.paused:
            self.wire.paused = False
            self.wire.transport.resume_reading()
