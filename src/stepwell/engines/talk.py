"""One question to a chat model, for Stepwell's own use: instructions and text in, text out."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.errors import EngineBadReply
from stepwell.protocols import Engine
from stepwell.types import Caller, Request, Usage

CALLER = Caller("stepwell", "stepwell")
ENDED = frozenset({"stop", None})


class Message(Struct):
    """What the model said."""

    content: Any = None
    refusal: Any = None


class Choice(Struct):
    """One of its answers."""

    message: Message
    finish_reason: str | None = None


class Reply(Struct):
    """The part of a reply that matters here."""

    choices: list[Choice]


reply_by = msgspec.json.Decoder(Reply).decode


async def talk(
    engine: Engine, model: str, instructions: str, text: str, *, max_tokens: int
) -> tuple[str, Usage | None]:
    """Ask, at temperature 0; the answer is "" where the model refuses or is cut off. Raises EngineError."""
    fields = {
        "model": model,
        "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": max_tokens,
        "response_format": {"type": "json_object"},
    }
    return await ask(engine, fields)


async def ask(engine: Engine, fields: dict[str, Any], caller: Caller = CALLER) -> tuple[str, Usage | None]:
    """Ask a chat; the answer is "" where the model refuses or is cut off. Raises EngineError."""
    body = msgspec.json.encode(fields)
    request = Request(
        id="talk", kind="chat", caller=caller, model=fields["model"], body=body, canonical=body, sampled=False
    )
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            return said(chunk.data, engine.name), chunk.usage
    raise EngineBadReply("no reply", engine=engine.name)


def said(data: bytes, engine: str) -> str:
    """The text of a reply. Raises EngineBadReply."""
    try:
        choice = reply_by(data).choices[0]
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
        raise EngineBadReply(f"not a chat completion: {error}", engine=engine) from error
    whole = choice.finish_reason in ENDED and not choice.message.refusal and isinstance(choice.message.content, str)
    return choice.message.content if whole else ""
