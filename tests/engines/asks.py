"""What the tests of engines share: a question, an engine to ask, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from stepwell.config import HttpEngine
from stepwell.engines import openai as wire
from stepwell.engines.http import Http
from stepwell.engines.scripted import Scripted
from stepwell.gateway import openai
from stepwell.types import Caller, Chunk, Kind, Request

OK = json.dumps(
    {"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
).encode()


ASKED: dict[Kind, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "completion": {"prompt": "hi"},
    "embedding": {"input": "hi"},
}


def ask(kind: Kind = "chat", **fields: Any) -> Request:
    body = {"model": "well", **ASKED[kind], **fields}
    return openai.parse(kind, json.dumps(body).encode(), id="1", caller=Caller("t", "p"), started_s=0.0)


def engine(url: str, **more: Any) -> Http:
    return Http("up", HttpEngine(url=url, **{"retries": 0, "retry_base_s": 0.001, **more}))


def event(text: str) -> bytes:
    told = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


STREAM = [
    event("De"),
    event("ep."),
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
    wire.DONE,
]


async def all_of(up: Http | Scripted, request: Request) -> list[Chunk]:
    try:
        return [chunk async for chunk in up.generate(request)]
    finally:
        await up.close()


def raw(*pieces: bytes, gap_s: float = 0.0, close: bool = True) -> Any:
    async def script(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(gap_s)
        if close:
            writer.close()

    return script


def after(failures: int, bad: Any, good: Any) -> Any:
    left = [failures]

    async def script(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        left[0] -= 1
        await (bad if left[0] >= 0 else good)(head, body, writer)

    return script
