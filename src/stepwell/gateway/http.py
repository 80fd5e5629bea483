"""HTTP/1.1 on one connection: bytes in, Exchanges out, in order. It knows nothing of OpenAI.

A bare `asyncio.Protocol` on llhttp costs a third of an ASGI server; the price is that limits, slow callers,
smuggling and draining are ours to get right (`tests/gateway/test_hostile.py`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic, perf_counter
from typing import Any

import httptools
from msgspec import Struct

from stepwell.drive import Drive
from stepwell.errors import AdmitError
from stepwell.gateway.exchange import Exchange
from stepwell.gateway.spool import Spool

Serve = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers one Exchange; must not raise."""
Opens = Callable[[Exchange, Callable[[], None], Callable[[], None]], Spool | None]
"""Says where a body goes that is too large for memory, if it may come at all; how its caller is stopped and started.

Raises AdmitError to who may not.
"""

AT_ONCE = struct.pack("ii", 1, 0)
LINGER_S = 5.0
"""How long a refused caller may still send, so that the refusal reaches it before the connection closes."""
SLOWEST_BYTES_S = 64 * 1024
"""A body that goes to disk must come no slower than this."""


class Limits(Struct, frozen=True):
    """What one connection may use. Bytes and seconds, as in `[server]`."""

    max_body_bytes: int
    max_head_bytes: int
    max_connections: int
    receive_timeout_s: float
    idle_timeout_s: float
    send_timeout_s: float


class Listener:
    """What the connections of one worker share: the limits, who answers, and each other."""

    __slots__ = ("connections", "draining", "limits", "opens", "refuse", "serve")

    def __init__(
        self,
        limits: Limits,
        serve: Serve,
        refuse: Callable[[Exchange, int, str], None],
        opens: Opens = lambda *_: None,
    ) -> None:
        self.limits, self.serve, self.refuse, self.opens = limits, serve, refuse, opens
        self.connections: set[Connection] = set()
        self.draining = False

    def sweep(self) -> None:
        """Close what is too slow or idle for too long; called once a second."""
        now_s = monotonic()
        for connection in tuple(self.connections):
            connection.check(now_s)

    def drain(self) -> None:
        """Take no further request: idle connections close now, busy ones after their reply."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.close_if_idle()


class Connection(asyncio.Protocol):
    """One caller's connection: parses requests, answers them one after the other."""

    __slots__ = (
        "body",
        "body_bytes",
        "current",
        "discarding",
        "drive",
        "head_bytes",
        "headers",
        "in_head",
        "listener",
        "loop",
        "parser",
        "paused",
        "receiving",
        "refusal",
        "since_s",
        "spool",
        "started_s",
        "target",
        "transport",
        "waiting",
        "writable",
    )

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.loop = asyncio.get_running_loop()
        self.parser: Any = httptools.HttpRequestParser(self)
        self.waiting: deque[Exchange] = deque()
        self.current: Exchange | None = None
        self.drive: Drive | None = None
        self.writable: asyncio.Future[None] | None = None
        self.receiving = self.in_head = self.discarding = self.paused = False
        self.head_bytes = self.body_bytes = 0
        self.since_s = monotonic()
        self.started_s = 0.0
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body: list[bytes] = []
        self.spool: Spool | None = None
        self.refusal: AdmitError | None = None
        self.transport: Any = None  # uvloop's is no subclass of asyncio's

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.listener.connections.add(self)
        if len(self.listener.connections) > self.listener.limits.max_connections:
            self.turn_away(503, "too many connections; try again later")

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            return
        if not self.receiving:
            self.since_s = monotonic()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # refused with its head
        except httptools.HttpParserError as error:
            if not self.discarding:
                self.turn_away(400, f"not an HTTP/1.1 request: {error}")
            return
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > self.listener.limits.max_head_bytes:
                self.turn_away(431, f"the head passes {self.listener.limits.max_head_bytes} bytes")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.listener.connections.discard(self)
        self.waiting.clear()
        if self.current is not None:
            self.current.gone = True
        if self.drive is not None:
            self.loop.call_soon(self.drive.cancel)  # never from within its own step
        self.drop_spool()
        self.resume_writing()

    def pause_writing(self) -> None:
        self.since_s = monotonic()
        self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # --- the parser's side

    def on_message_begin(self) -> None:
        self.receiving = True
        self.started_s = perf_counter()
        self.head_bytes = self.body_bytes = 0
        self.in_head = True
        self.target = b""
        self.headers = {}
        self.body = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        headers = self.headers
        length = headers.get(b"content-length", b"")
        self.in_head = False
        if length and int(length) > self.listener.limits.max_body_bytes and not self.spooling(int(length)):
            self.too_large()
        elif b"upgrade" in headers or self.parser.get_method() == b"CONNECT":
            self.turn_away(400, "this server speaks HTTP/1.1 only: send no Upgrade header")
        elif headers.get(b"expect", b"").lower() == b"100-continue" and self.current is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        if self.discarding:
            return
        self.body.append(data)
        self.body_bytes += len(data)
        if self.body_bytes > self.listener.limits.max_body_bytes or self.spool is not None:
            self.beyond()

    def on_message_complete(self) -> None:
        if self.discarding:
            return
        self.receiving = False
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        exchange = Exchange(
            self,
            method=self.parser.get_method(),
            target=self.target,
            headers=self.headers,
            body=body,
            started_s=self.started_s,
            keep_alive=self.parser.should_keep_alive() and not self.listener.draining,
            chunked=self.parser.get_http_version() == "1.1",
            spool=self.spool,
        )
        self.spool = None
        if self.current is None and not self.waiting:
            self.answer(exchange)
            return
        self.waiting.append(exchange)
        self.pause_reading()

    # --- answering

    def answer(self, exchange: Exchange) -> None:
        """Answer in this very call, or in the one that brings what the answer waits for."""
        self.current = exchange
        drive = Drive(self.listener.serve(exchange), self.loop)
        if not drive.over:
            self.drive = drive

    def finished(self, exchange: Exchange) -> None:
        """The reply is written: go on to the next request of this connection, or close it."""
        self.current = None
        self.drive = None
        self.since_s = monotonic()
        if not exchange.keep_alive or self.listener.draining:
            self.linger()
        elif self.waiting:
            self.loop.call_soon(self.next_waiting)

    def next_waiting(self) -> None:
        """Answer the next pipelined request."""
        if self.current is None and self.waiting and not self.transport.is_closing():
            exchange = self.waiting.popleft()
            if not self.waiting:
                self.resume_reading()
            self.answer(exchange)

    def pause_reading(self) -> None:
        """Let a caller who pipelines wait: its requests stay in its own buffers."""
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    # --- bodies that memory shall not hold

    def spooling(self, length: int = 0) -> bool:
        """Whether the body goes to disk; `length`: how long it says it is."""
        if self.spool is None:
            method, chunked = self.parser.get_method(), self.parser.get_http_version() == "1.1"
            asking = Exchange(self, method=method, target=self.target, headers=self.headers, chunked=chunked)
            try:
                self.spool = self.listener.opens(asking, self.pause_reading, self.go_on)
            except AdmitError as error:
                self.refusal = error
        return self.spool is not None and length <= self.spool.limit_bytes

    def beyond(self) -> None:
        """Move what is there to disk; the time it may take grows with it."""
        data, self.body = b"".join(self.body), []
        if not self.spooling() or self.spool is None or not self.spool.takes(data):
            self.too_large()
        else:
            self.since_s = min(monotonic(), self.since_s + len(data) / SLOWEST_BYTES_S)

    def go_on(self) -> None:
        """The disk has caught up with the caller."""
        if not self.waiting:
            self.resume_reading()

    def drop_spool(self) -> None:
        """What was coming is not wanted any more."""
        spool, self.spool = self.spool, None
        if spool is not None:
            spool.close()

    # --- refusing and closing

    def too_large(self) -> None:
        """Say why a body cannot be taken."""
        if self.refusal is not None:
            self.turn_away(self.refusal.status, str(self.refusal))
            return
        if self.spool is not None and self.spool.crowded:
            self.turn_away(429, "too much is being uploaded with this tenant's keys at once; try again later")
            return
        if self.spool is not None:
            what = f"{self.spool.limit_bytes} bytes; send less, or raise fine_tuning.max_file_bytes"
        else:
            what = f"{self.listener.limits.max_body_bytes} bytes; send less, or raise server.max_body_bytes"
        self.turn_away(413, f"the body passes {what}")

    def turn_away(self, status: int, why: str) -> None:
        """Refuse what cannot be read any further, and close once the caller had a chance to read why."""
        self.discarding, self.receiving = True, False
        self.drop_spool()
        if self.current is not None:  # a reply is under way: it must not be mixed with a refusal
            self.current.keep_alive = False
            self.waiting.clear()
            return
        exchange = Exchange(self, keep_alive=False, started_s=perf_counter())
        self.current = exchange
        self.listener.refuse(exchange, status, why)

    def linger(self) -> None:
        """Close; where the caller is still sending, only after it had time to read the reply."""
        if self.discarding and not self.transport.is_closing():
            self.since_s = monotonic()
            self.resume_reading()
        else:
            self.transport.close()

    def cut_off(self) -> None:
        """Close at once, and let the kernel forget what it has not sent: the caller does not take it."""
        line = self.transport.get_extra_info("socket")
        if line is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self.transport.abort()

    def close_if_idle(self) -> None:
        if self.current is None and not self.waiting and not self.receiving:
            self.transport.close()

    def check(self, now_s: float) -> None:
        """Give up on a caller who sends, takes or wants nothing for too long."""
        limits = self.listener.limits
        waited_s = now_s - self.since_s
        if self.writable is not None:
            if waited_s > limits.send_timeout_s:
                self.cut_off()
        elif self.discarding and self.current is None:
            if waited_s > LINGER_S:
                self.cut_off()
        elif self.receiving and self.current is None:
            if waited_s > limits.receive_timeout_s:
                self.turn_away(408, f"the request did not arrive within {limits.receive_timeout_s:g} s")
        elif self.current is None and waited_s > limits.idle_timeout_s:
            self.transport.close()


def listening(listener: Listener) -> Callable[[], Connection]:
    """What `loop.create_server` wants: makes a Connection for each caller."""
    return lambda: Connection(listener)
