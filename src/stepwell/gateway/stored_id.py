"""An id of its own for an answer that is stored: one from the cache bears the id of the one that it was kept from."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from stepwell.engines.replay import split_events
from stepwell.protocols import Chunks
from stepwell.types import Chunk, Form, Outcome

fields_of = msgspec.json.Decoder(dict[str, Raw]).decode
encode = msgspec.json.Encoder().encode


def id_of(request_id: str) -> str:
    """What a stored answer is called."""
    return f"chatcmpl-{request_id}"


def named(outcome: Outcome, request_id: str) -> Outcome:
    """The same outcome, whose answer bears the id under which it is stored."""
    answer = outcome.answer
    if answer is None:
        return outcome
    name = Raw(encode(id_of(request_id)))
    chunks = None if answer.chunks is None else Named(answer.chunks, name)
    body = renamed(answer.body, answer.form, name)
    return msgspec.structs.replace(outcome, answer=msgspec.structs.replace(answer, body=body, chunks=chunks))


class Named:
    """`protocols.Chunks` whose events all bear one id."""

    def __init__(self, chunks: Chunks, name: Raw) -> None:
        self.chunks, self.name = chunks, name

    def __aiter__(self) -> Named:
        return self

    async def __anext__(self) -> Chunk:
        chunk = await self.chunks.__anext__()
        return msgspec.structs.replace(chunk, data=renamed(chunk.data, "events", self.name))

    async def aclose(self) -> None:
        """Want no more of it."""
        await self.chunks.aclose()


def renamed(data: bytes, form: Form, name: Raw) -> bytes:
    """The same JSON, or events, with another id."""
    if form == "json":
        return with_id(data, name)
    return b"".join(event_with_id(event, name) for event in split_events(data))


def event_with_id(event: bytes, name: Raw) -> bytes:
    """One event with another id; comments and the end mark as they are."""
    if not event.startswith(b"data:") or b"{" not in event:
        return event
    data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"data: %b\n\n" % with_id(data, name)


def with_id(data: bytes, name: Raw) -> bytes:
    """A JSON object with another id; what is none, or no part of an answer, as it is."""
    try:
        fields = fields_of(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data
    return encode({**fields, "id": name}) if "choices" in fields else data
