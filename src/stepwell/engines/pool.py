"""Connections to one server, kept and used again, and a fair line for them."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from time import monotonic
from urllib.parse import urlsplit

from msgspec import Struct

from stepwell.engines.wire import Reply, WentAway, Wire
from stepwell.errors import ConfigError, EngineTimeout, EngineUnavailable

WATCH_S = 0.1


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


def address_of(url: str, field: str = "url") -> Address:
    """Take a URL apart; a slash at its end does not count. Raises ConfigError, naming `field`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL ({error}); write https://HOST[:PORT]/PATH", field=field) from error
    if not parts.hostname or not (url.isascii() and url.isprintable() and " " not in url):
        raise ConfigError(f"{url!r} is not a URL; write https://HOST[:PORT]/PATH", field=field)
    tls = parts.scheme == "https"
    return Address(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))


class Patience(Struct, frozen=True):
    """How long to wait, in seconds: for a connection; from the request to its reply's first body byte; to its last."""

    connect_s: float
    first_byte_s: float
    total_s: float


class ConnectTimeout(EngineTimeout):
    """No connection in time: the server has not seen the request."""


class Pool:
    """Connections to one server; a free one is used again, the youngest first. Callers wait in line for the rest."""

    def __init__(self, address: Address, patience: Patience, limit: int) -> None:
        self.address, self.patience, self.limit = address, patience, limit
        self.wires: set[Wire] = set()
        """All there are, those still being opened too: at most `limit`."""
        self.free: dict[Wire, None] = {}
        self.line: deque[asyncio.Future[Wire]] = deque()
        self.busy: set[Wire] = set()
        self.watching = False
        self.context = ssl.create_default_context() if address.tls else None

    async def ask(self, data: bytes) -> Reply:
        """Send a request and wait for the head of its reply.

        Raises EngineUnavailable, EngineTimeout, EngineBadReply. A connection that the server had closed while it was
        free is no failure: the request goes out once more on another.
        """
        wire = await self.taken()
        used_before = wire.used
        try:
            return await wire.ask(data)
        except WentAway:
            if not used_before:
                raise
        for idle in tuple(self.free):  # free for longer, so no better
            idle.hang_up()
        wire = await self.taken()
        return await wire.ask(data)

    async def taken(self) -> Wire:
        """A free connection, or a new one, or in its turn the next there is."""
        while self.free:
            wire, _ = self.free.popitem()
            if not wire.transport.is_closing():
                return wire
        wire = self.new() if len(self.wires) < self.limit else await self.turn()
        if wire.transport is None:
            await self.connect(wire)
        return wire

    def new(self) -> Wire:
        """A connection that is still to be opened, but has its place."""
        wire = Wire(self)
        self.wires.add(wire)
        return wire

    async def turn(self) -> Wire:
        """Wait in line; nobody who comes later is served before."""
        turn: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        self.line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.pass_on(turn.result())
            raise

    async def connect(self, wire: Wire) -> None:
        """Open a connection. Raises EngineUnavailable and ConnectTimeout."""
        address = self.address
        try:
            # a task, for wait_for needs one: see drive.py
            await wire.loop.create_task(self.open(wire))
        except BaseException as error:
            wire.hang_up()
            if isinstance(error, TimeoutError):
                raise ConnectTimeout(f"no connection within {self.patience.connect_s:g} s") from error
            if isinstance(error, OSError | UnicodeError):
                raise EngineUnavailable(f"cannot connect to {address.host}:{address.port} ({error})") from error
            raise

    async def open(self, wire: Wire) -> None:
        """Connect, and for https shake hands. Raises TimeoutError and OSError."""
        host, port = self.address.host, self.address.port
        name = host if self.context else None
        opening = wire.loop.create_connection(lambda: wire, host, port, ssl=self.context, server_hostname=name)
        await asyncio.wait_for(opening, self.patience.connect_s)

    def watch_over(self, wire: Wire) -> None:
        """A reply is waited for, and not for ever."""
        self.busy.add(wire)
        if not self.watching:
            self.watching = True
            wire.loop.call_later(WATCH_S, self.watch)

    def watch(self) -> None:
        """Look at the time limits of all replies that are waited for, ten times a second while there are any."""
        now_s = monotonic()
        for wire in tuple(self.busy):
            if now_s > wire.deadline_s:
                wire.late()
        self.watching = bool(self.busy)
        if self.watching:
            asyncio.get_running_loop().call_later(WATCH_S, self.watch)

    def pass_on(self, wire: Wire) -> None:
        """A connection is free, or there is place for one: it goes to the caller who waits longest."""
        while self.line:
            turn = self.line.popleft()
            if not turn.done():
                turn.set_result(wire)
                return
        if wire.transport is None:
            self.wires.discard(wire)
        else:
            self.free[wire] = None

    def lost(self, wire: Wire) -> None:
        """A connection is gone, which may be said twice: there is place for another."""
        if wire not in self.wires:
            return
        self.wires.discard(wire)
        self.busy.discard(wire)
        self.free.pop(wire, None)
        if self.line:
            self.pass_on(self.new())

    async def close(self) -> None:
        """Close every connection."""
        for wire in tuple(self.wires):
            wire.hang_up()
        await asyncio.sleep(0)
