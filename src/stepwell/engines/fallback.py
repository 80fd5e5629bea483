"""The first of several engines that answers: the next is tried only while nothing has been said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from stepwell.errors import EngineBadReply, EngineError, EngineRefusal, EngineUnavailable
from stepwell.protocols import Engine
from stepwell.types import Chunk, Request

UNDERSTOOD = range(400, 500)
TOO_MANY = (408, 409, 425, 429)


class Opened(Struct, frozen=True):
    """A generation that has begun: by which engine, its first chunk, and the rest."""

    engine: str
    first: Chunk
    rest: Any
    """`protocols.Chunks`."""


async def start(engines: Sequence[Engine], request: Request) -> Opened:
    """Begin to generate. Raises the refusal of an engine that understood, else the last error with all reasons."""
    errors: list[EngineError] = []
    for engine in engines:
        chunks = engine.generate(request)
        try:
            first = await anext(chunks)
        except EngineError as error:
            if is_final(error):
                raise
            errors.append(error)
        except StopAsyncIteration:
            errors.append(EngineBadReply("nothing was generated", engine=engine.name))
        else:
            return Opened(engine.name, first, chunks)
    raise together(errors)


def is_final(error: EngineError) -> bool:
    """Say whether every engine would refuse the same way: the request itself is at fault."""
    return isinstance(error, EngineRefusal) and error.status in UNDERSTOOD and error.status not in TOO_MANY


def together(errors: list[EngineError]) -> EngineError:
    """One error that tells what happened to each engine."""
    if len(errors) == 1:
        return errors[0]
    reasons = "; ".join(map(str, errors))
    last = errors[-1] if errors else EngineUnavailable("no engine")
    if isinstance(last, EngineRefusal):
        return EngineRefusal(reasons, engine="", status=last.status, body=last.body, retry_after_s=last.retry_after_s)
    return type(last)(reasons)
