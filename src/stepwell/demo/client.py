"""A light HTTP/1.1 client for one kept-alive connection: enough to play a guide's readers, no more."""

from __future__ import annotations

import asyncio
import re
from time import perf_counter
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

LIMIT_S = 60.0
"""A reply must be whole after this time."""


class Broken(Exception):  # noqa: N818 - what is said of a reply
    """The reply is not what the API promises; says how."""


class Reply(Struct, frozen=True):
    """A whole reply: status, header lines by lower-case name, body, and seconds to its first and last byte."""

    status: int
    headers: dict[str, str]
    body: bytes
    first_s: float
    seconds: float


class Connection:
    """One caller's connection, opened when needed."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()

    async def ask(self, path: str, body: bytes = b"", *, key: str = "") -> Reply:
        """Send one request (POST where it has a body) and read its whole reply. Raises OSError and Broken."""
        try:
            return await asyncio.wait_for(self.exchange(request(self.host, path, body, key)), LIMIT_S)
        except TimeoutError as error:
            self.hang_up()
            raise Broken(f"no whole reply within {LIMIT_S:g} s") from error
        except EOFError as error:
            self.hang_up()
            raise Broken("the connection ended in the middle of a reply") from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            self.hang_up()
            raise Broken(f"the reply is not HTTP ({error})") from error
        except BaseException:
            self.hang_up()
            raise

    async def exchange(self, sent: bytes) -> Reply:
        """One request out, one reply in."""
        if self.reader is None or self.writer is None or self.reader.at_eof():
            self.hang_up()
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        started_s = perf_counter()
        self.writer.write(sent)
        status, headers = head(await self.reader.readuntil(b"\r\n\r\n"))
        first_s = perf_counter() - started_s
        body = await whole_body(self.reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.hang_up()
        return Reply(status, headers, body, first_s, perf_counter() - started_s)

    def hang_up(self) -> None:
        """Close; the next request opens a new connection."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def request(host: str, path: str, body: bytes, key: str) -> bytes:
    """The bytes of a request."""
    secret = f"Authorization: Bearer {key}\r\n" if key else ""
    typed = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: {host}\r\n{secret}{typed}\r\n".encode() + body


def head(data: bytes) -> tuple[int, dict[str, str]]:
    """Status and header lines of a reply."""
    first, *lines = data.decode("latin-1").split("\r\n")
    return int(first.partition(" ")[2][:3]), {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }


async def whole_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Read a body by its length, or chunk by chunk."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers["content-length"])) if "content-length" in headers else b""
    pieces = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)


def text_of(reply: Reply) -> str:
    """The text of a chat reply, JSON or events. Raises Broken where it is an error or cut off."""
    if reply.status != 200:  # noqa: PLR2004 - HTTP's word for well
        raise Broken(f"HTTP {reply.status}: {reply.body[:300].decode(errors='replace')}")
    try:
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            return "".join(deltas(reply.body))
        return str(msgspec.json.decode(reply.body)["choices"][0]["message"]["content"])
    except (msgspec.DecodeError, LookupError, TypeError) as error:
        raise Broken(f"not a chat completion: {reply.body[:300].decode(errors='replace')}") from error


def deltas(body: bytes) -> list[str]:
    """The pieces of text in a stream of events. Raises Broken for an error event and for a missing end mark."""
    events = re.findall(rb"^data: ?(.*?)\r?$", body, re.MULTILINE)
    if not events or events[-1] != b"[DONE]":
        raise Broken(f"the stream broke off: {body[-300:].decode(errors='replace')}")
    choices = [choice for event in events[:-1] for choice in msgspec.json.decode(event)["choices"]]
    return [choice["delta"].get("content") or "" for choice in choices]
