"""The rest of OpenAI's API, beside generation: what is asked becomes a value, and so does the page that answers it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Struct

from stepwell.errors import AdmitError, BadRequest, StoreError
from stepwell.gateway import admit, reply
from stepwell.gateway.exchange import Exchange
from stepwell.gateway.pages import NoSuchPage
from stepwell.gateway.spool import Spool
from stepwell.types import Caller

if TYPE_CHECKING:
    from stepwell.gateway.answer import Door

log = logging.getLogger(__name__)

JSON = b"application/json"
BYTES = b"application/octet-stream"
PIECE_BYTES = 1024 * 1024
MOST_PARAMETERS = 64

encode = msgspec.json.Encoder().encode


class Asked(Struct, frozen=True, kw_only=True):
    """What a caller wants of a surface."""

    caller: Caller
    method: str
    parts: tuple[str, ...] = ()
    """The path behind the surface's own."""
    query: Mapping[str, str] = {}
    content_type: str = ""
    body: bytes = b""
    spool: Spool | None = None
    """The body, where it was too large for memory."""

    @property
    def tenant(self) -> str:
        """Whose things these are: another tenant's are not there."""
        return self.caller.tenant


class Page(Struct, frozen=True, kw_only=True):
    """What a surface answers: bytes, or a file."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = JSON
    head: bytes = b""
    """Further header lines."""
    file: Path | None = None


Surface = Callable[[Asked], Awaitable[Page]]


class NotFound(AdmitError):  # noqa: N818 - a word like its siblings in errors.py
    """This tenant has nothing of this name."""

    status = 404
    code = "not_found"


def found(surfaces: Mapping[bytes, Surface], path: bytes) -> tuple[Surface, tuple[str, ...]] | None:
    """The surface a path belongs to, and the rest of the path; None where it belongs to none."""
    for start, surface in surfaces.items():
        if path == start:
            return surface, ()
        if path.startswith(start + b"/"):
            rest = path[len(start) + 1 :].decode("latin-1")
            return surface, tuple(unquote(part) for part in rest.split("/"))
    return None


class OutOfReach(AdmitError):  # noqa: N818 - a word like its siblings in errors.py
    """A file of ours cannot be read or written."""

    status = 503
    code = "store_unavailable"


async def show(door: Door, exchange: Exchange, surface: Surface, parts: tuple[str, ...]) -> None:
    """Answer one request of a surface; only who has a key is told anything. Raises AdmitError."""
    try:
        page = await surface(asked(door, exchange, parts))
    except StoreError as error:
        log.error("%s", error)  # noqa: TRY400 - it says where; and that is none of the caller's business
        raise OutOfReach("what is stored cannot be reached at the moment; try again later") from error
    finally:
        if exchange.spool is not None:
            exchange.spool.close()
    if page.status >= 400:  # noqa: PLR2004 - refusals
        door.refused("method_not_allowed", page.status)
    head = reply.start_of(page.content_type, door.new_id()) + page.head
    if page.file is None:
        exchange.reply(page.status, head, page.body)
    else:
        await give(exchange, head, page.file)


def asked(door: Door, exchange: Exchange, parts: tuple[str, ...]) -> Asked:
    """What is asked, as a value. Raises AdmitError."""
    caller = admit.caller(exchange.headers.get(b"authorization"), door.callers)
    text = exchange.target.partition(b"?")[2].decode("latin-1")
    try:
        query = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARAMETERS))
    except ValueError as error:
        raise BadRequest(f"the query is not readable: {error}") from error
    return Asked(
        caller=caller,
        method=exchange.method.decode(),
        parts=parts,
        query=query,
        content_type=exchange.headers.get(b"content-type", b"").decode("latin-1"),
        body=exchange.body,
        spool=exchange.spool,
    )


def page(told: object, status: int = 200) -> Page:
    """Something as JSON."""
    return Page(body=encode(told), status=status)


async def taken(ways: Mapping[str, Surface], asked: Asked) -> Page:
    """Go the way of the method, or say which ways there are."""
    way = ways.get(asked.method)
    return not_allowed(", ".join(ways)) if way is None else await way(asked)


def not_allowed(allowed: str) -> Page:
    """Refuse a method, and name the right ones."""
    error = {"message": f"use {allowed} here", "type": "invalid_request_error", "param": None}
    body = encode({"error": {**error, "code": "method_not_allowed"}})
    return Page(body=body, status=405, head=f"Allow: {allowed}\r\n".encode())


def absent(why: str) -> Surface:
    """A surface that is not configured says so."""

    async def surface(_asked: Asked) -> Page:
        raise NoSuchPage(why)

    return surface


async def give(exchange: Exchange, head: bytes, path: Path) -> None:
    """Send a file piece by piece, no faster than it is taken. Raises NotFound."""
    try:
        file: BinaryIO = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise NotFound(f"the content of this file is gone ({error.strerror})") from error
    with file:
        exchange.begin(head, b"")
        try:
            while (piece := await asyncio.to_thread(file.read, PIECE_BYTES)) and not exchange.gone:
                exchange.write(piece)
                if exchange.connection.writable is not None:
                    await exchange.connection.writable
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error)
            exchange.abort()
            return
    exchange.end()
