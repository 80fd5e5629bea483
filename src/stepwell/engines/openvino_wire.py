"""What goes between the gateway's process and OpenVINO's: msgpack in frames, each with its length in front."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TypeVar

import msgspec
from msgspec import Struct

from stepwell.config_embedded import EmbeddedEngine
from stepwell.errors import EngineBadReply, EngineError, EngineRefusal
from stepwell.types import Chunk, Request

SIZE_BYTES = 4
T = TypeVar("T")
encode = msgspec.msgpack.Encoder().encode


class Setup(Struct, frozen=True):
    """The first thing said to the process: what to load."""

    name: str
    config: EmbeddedEngine


class Ready(Struct, frozen=True):
    """The first thing it says: that all is loaded, or what stands against it."""

    complaint: str = ""


class Asked(Struct, frozen=True):
    """A request; without one, nobody wants the reply to that number any more."""

    number: int
    request: Request | None = None


class Fault(Struct, frozen=True):
    """An EngineError on its way; with a status it is a refusal."""

    what: str
    status: int = 0
    body: bytes = b""


class Made(Struct, frozen=True):
    """The next piece of a reply."""

    number: int
    chunks: tuple[Chunk, ...] = ()
    ended: bool = False
    fault: Fault | None = None


def framed(value: Struct) -> bytes:
    """One frame."""
    data = encode(value)
    return len(data).to_bytes(SIZE_BYTES) + data


def frames(file: IO[bytes], kind: type[T]) -> Iterator[T]:
    """Values until the other side is gone, in whatever way."""
    decode = msgspec.msgpack.Decoder(kind).decode
    while len(size := file.read(SIZE_BYTES)) == SIZE_BYTES:
        data = file.read(int.from_bytes(size))
        if len(data) < int.from_bytes(size):
            return
        yield decode(data)


def fault_of(error: EngineError) -> Fault:
    """An error as it travels."""
    what = error.args[0]
    return Fault(what, error.status, error.body) if isinstance(error, EngineRefusal) else Fault(what)


def error_of(fault: Fault, engine: str) -> EngineError:
    """The error again."""
    if fault.status:
        return EngineRefusal(fault.what, engine=engine, status=fault.status, body=fault.body)
    return EngineBadReply(fault.what, engine=engine)
