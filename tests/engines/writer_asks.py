"""Questions to the house writer, for whatever engine runs it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from stepwell.gateway import openai
from stepwell.protocols import Engine
from stepwell.types import Caller, Chunk, Kind, Request

FACTS = "name[The Amber Fox], eatType[pub], food[French], area[riverside]"
PLACE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["name", "stars"],
    "additionalProperties": False,
}


def ask(kind: Kind = "chat", **fields: Any) -> Request:
    asked = {"prompt": FACTS} if kind == "completion" else {"messages": [{"role": "user", "content": FACTS}]}
    body = {"model": "writer", "temperature": 0, **asked, **fields}
    return openai.parse(kind, json.dumps(body).encode(), id="1", caller=Caller("t", "p"), started_s=0.0)


async def all_of(engine: Engine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


async def left_early(engine: Engine, request: Request, *, after_s: float) -> None:
    """Ask, and hang up: a stream after its first chunk, anything else after a while."""
    if request.stream:
        chunks = engine.generate(request)
        await anext(chunks)
        await chunks.aclose()
        return
    asking = asyncio.ensure_future(all_of(engine, request))
    await asyncio.sleep(after_s)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
