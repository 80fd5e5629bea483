"""One request with the way to answer it: whole, or piece by piece with one write a piece."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.gateway.http import Connection
    from stepwell.gateway.spool import Spool

LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


class Exchange:
    """What arrived, and `reply` for one write, or `begin`, `write` …, `end` (or `abort`) for a stream."""

    __slots__ = (
        "body",
        "chunked",
        "connection",
        "gone",
        "headers",
        "keep_alive",
        "method",
        "spool",
        "started_s",
        "target",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        method: bytes = b"",
        target: bytes = b"",
        headers: dict[bytes, bytes] | None = None,
        body: bytes = b"",
        started_s: float = 0.0,
        keep_alive: bool = True,
        chunked: bool = True,
        spool: Spool | None = None,
    ) -> None:
        self.connection = connection
        self.method, self.target, self.headers, self.body = method, target, headers or {}, body
        self.started_s = started_s
        self.keep_alive = keep_alive
        self.chunked = chunked
        self.spool = spool
        self.gone = False

    def reply(self, status: int, head: bytes, body: bytes) -> None:
        """Send a whole reply in one write. `head` is header lines, each ended by CRLF."""
        if not self.gone:
            close = b"" if self.keep_alive else CLOSE
            text = b"" if self.method == b"HEAD" else body
            self.connection.transport.write(
                b"%bContent-Length: %d\r\n%b%b\r\n%b" % (LINES[status], len(body), close, head, text)
            )
        self.connection.finished(self)

    def unchanged(self, head: bytes) -> None:
        """Say that the caller's copy is still right (304), which has no body, and so no length of one."""
        if not self.gone:
            close = b"" if self.keep_alive else CLOSE
            self.connection.transport.write(b"%b%b%b\r\n" % (LINES[304], close, head))
        self.connection.finished(self)

    def begin(self, head: bytes, first: bytes) -> None:
        """Send the head of a stream together with its first piece."""
        if self.gone:
            return
        if self.chunked:
            close = b"" if self.keep_alive else CLOSE
            piece = b"%x\r\n%b\r\n" % (len(first), first) if first else b""
            self.connection.transport.write(b"%b%b%b%b\r\n%b" % (LINES[200], CHUNKED, close, head, piece))
        else:  # HTTP/1.0 knows no chunks: the end of the connection is the end of the reply
            self.keep_alive = False
            self.connection.transport.write(b"%b%b%b\r\n%b" % (LINES[200], CLOSE, head, first))

    def write(self, data: bytes) -> None:
        """Send one piece of a stream, in one write."""
        if not self.gone and data:
            self.connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end(self) -> None:
        """End a stream that is complete."""
        if self.chunked and not self.gone:
            self.connection.transport.write(b"0\r\n\r\n")
        self.connection.finished(self)

    def abort(self) -> None:
        """End a stream that is not complete so that nobody can take it for a complete one."""
        self.keep_alive = False
        self.connection.finished(self)
