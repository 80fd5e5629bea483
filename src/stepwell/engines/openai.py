"""OpenAI's wire shape on the engine's side: what is asked upstream, and what comes back.

With the gateway's `openai.py` and the cache's `replay.py` the only files that know OpenAI's field names.
"""

from __future__ import annotations

import re
from time import time
from typing import Any

import msgspec
from msgspec import Raw, Struct

from stepwell.errors import EngineBadReply
from stepwell.types import Chunk, Kind, Request, Usage

PATHS: dict[Kind, str] = {"chat": "/chat/completions", "completion": "/completions", "embedding": "/embeddings"}
ASIDE = frozenset({"store", "metadata"})
"""What a caller says to the gateway: no engine is given it, for some refuse what they do not know."""
DONE = b"data: [DONE]\n\n"
NOTHING = Raw(b"null")
TRUE = Raw(b"true")
QUOTE, FEED, RETURN = b'"\n\r'
NO_EVENT = b"\0"
"""No event begins so: nothing is like it."""
MOST_LOOKS = 8

encode = msgspec.json.Encoder().encode
fields_of = msgspec.json.Decoder(dict[str, Raw]).decode
why_ended = re.compile(rb'"finish_reason"\s*:\s*"[^"]').findall
has_usage = re.compile(rb'"usage"\s*:\s*\{').search
words_of = re.compile(rb'[^\r\n]*"(?:content|text)"\s*:\s*"([^"\r\n]*)"[^\r\n]*\n\n').fullmatch
has_error = re.compile(rb'"error"\s*:\s*[^\sn]').search


class Counted(Struct):
    """Usage as an engine reports it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Told(Struct):
    """The part of a reply, or of an event, that matters here."""

    usage: Counted | None = None
    error: Raw = Raw()
    choices: list[Raw] | None = None


class Asked(Struct):
    """The part of a request that says how many texts, or vectors, are asked for."""

    n: int | None = None
    prompt: Any = None
    input: Any = None


told_by = msgspec.json.Decoder(Told).decode
asked_by = msgspec.json.Decoder(Asked).decode


def body_for(request: Request, model: str) -> bytes:
    """The caller's own bytes, unless the model has another name upstream, a stream must count, or some are aside."""
    counts = not request.stream or request.kind == "embedding" or request.include_usage
    if counts and not request.aside and model in ("", request.model):
        return request.body
    fields = fields_of(request.body)
    for name in ASIDE:
        fields.pop(name, None)
    if model:
        fields["model"] = Raw(encode(model))
    if not counts:
        options = fields.get("stream_options", NOTHING)
        kept = {} if options == NOTHING else fields_of(options)
        fields["stream_options"] = Raw(encode({**kept, "include_usage": TRUE}))
    return encode(fields)


def num_choices(request: Request) -> int:
    """How many texts a chat or completion asks for."""
    try:
        asked = asked_by(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 1
    prompts = asked.prompt if isinstance(asked.prompt, list) else []
    apart = sum(isinstance(prompt, str | list) for prompt in prompts)  # else one prompt, as a list of tokens
    return (asked.n or 1) * max(1, apart)


def whole(body: bytes) -> Chunk:
    """A JSON reply as its one chunk. Raises EngineBadReply where it is none."""
    try:
        told = told_by(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBadReply(f"the reply is not the JSON that was asked for: {error}") from error
    if told.error and told.error != NOTHING:
        raise EngineBadReply(f"an error with status 200: {bytes(told.error)[:200].decode(errors='replace')}")
    return Chunk(body, counted(told), last=True)


def counted(told: Told) -> Usage | None:
    """Usage in our words."""
    return Usage(told.usage.prompt_tokens, told.usage.completion_tokens) if told.usage else None


class Events:
    """Cuts a stream of bytes into whole events, however they were split on the way."""

    __slots__ = ("begun", "closing", "ended", "num_finished", "num_looks", "opening", "rest", "words_at")

    def __init__(self) -> None:
        self.rest = b""
        self.begun = self.ended = False
        self.num_finished = 0
        """How many choices have said why they end: some servers say that and send no end mark."""
        self.opening = self.closing = NO_EVENT
        self.words_at = slice(0)
        self.num_looks = 0

    def feed(self, data: bytes) -> list[Chunk]:
        """Take what arrived; give back what is whole. Raises EngineBadReply for an error event."""
        if self.ended:
            return []
        if self.are_words(data):
            return [Chunk(data)]
        if RETURN in data:
            data = data.replace(b"\r", b"")
        if self.rest:
            data = self.rest + data
        end = data.rfind(b"\n\n") + 2
        if end < 2:  # noqa: PLR2004 - nothing is whole yet
            self.rest = data
            return []
        self.rest = data[end:]
        events = data[:end] if self.rest else data
        if b'"finish_reason":"' in events or b'"finish_reason": "' in events:
            self.num_finished += len(why_ended(events))
        elif self.begun and b"[DONE]" not in events and not matters(events):
            self.look_at(events)
            return [Chunk(events)]
        return self.sorted(events)

    def are_words(self, data: bytes) -> bool:
        """Say whether this is one event, the same as one seen before but for its words: then it can be nothing more.

        Five searches through every event would cost more than all else that is done with it.
        """
        if self.rest or not data.startswith(self.opening) or not data.endswith(self.closing):
            return False
        words = data[self.words_at]
        return words != b"" and QUOTE not in words and FEED not in words and RETURN not in words

    def look_at(self, events: bytes) -> None:
        """Remember what stands around the words of an event; not for ever, for some streams change with every event."""
        if self.num_looks == MOST_LOOKS:
            return
        self.num_looks += 1
        found = words_of(events)
        if found is not None:
            start, end = found.span(1)
            self.opening, self.closing = events[:start], events[end:]
            self.words_at = slice(start, end - len(events))

    def sorted(self, events: bytes) -> list[Chunk]:
        """Look at events one by one: usage and the end mark are given as chunks of their own."""
        chunks: list[Chunk] = []
        plain: list[bytes] = []
        for event in (part + b"\n\n" for part in events.split(b"\n\n") if part.strip()):
            comment = event.startswith(b":")
            self.begun = self.begun or not comment
            chunk = None if comment else special(event)
            if chunk is None:
                plain += [event] if self.begun else []  # a ping before the first event is no sign of an answer
                continue
            if plain:
                chunks.append(Chunk(b"".join(plain)))
                plain = []
            chunks.append(chunk)
            if chunk.last:  # whatever follows is no part of the answer
                self.ended = True
                break
        return [*chunks, Chunk(b"".join(plain))] if plain else chunks


def matters(events: bytes) -> bool:
    """Say whether there is more than words; many servers write `"usage":null` into every event."""
    return bool((b'"usage"' in events and has_usage(events)) or (b'"error"' in events and has_error(events)))


def special(event: bytes) -> Chunk | None:
    """The chunk of an event that is more than words: usage, or the end mark; None for the rest."""
    data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
    if data == b"[DONE]":
        return Chunk(DONE, last=True)
    if not matters(data):
        return None
    try:
        told = told_by(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBadReply(f"an event that is not JSON: {error}") from error
    if told.error and told.error != NOTHING:
        raise EngineBadReply(f"an error in mid-stream: {bytes(told.error)[:300].decode(errors='replace')}")
    usage = counted(told)
    return Chunk(event, usage) if usage is not None else None


# --- writing replies, for engines that are not servers


def said(request: Request, text: str, usage: Usage, finish: str = "stop") -> bytes:
    """A whole JSON reply."""
    if request.kind == "embedding":
        told = usage_fields(usage)
        del told["completion_tokens"]
        return encode({"object": "list", "data": vectors(request), "model": request.model, "usage": told})
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    if request.kind == "chat":
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    kind = "chat.completion" if request.kind == "chat" else "text_completion"
    return encode({**opening(request, kind), "choices": [choice], "usage": usage_fields(usage)})


def event(
    request: Request,
    text: str | None,
    finish: str | None = None,
    *,
    first: bool = False,
    index: int = 0,
    logprobs: dict[str, Any] | None = None,
) -> bytes:
    """One event of a stream: some words, or its end."""
    choice: dict[str, Any] = {"index": index, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = logprobs
    if request.kind == "chat":
        role = {"role": "assistant"} if first else {}
        choice["delta"] = {**role, "content": text} if text is not None else {}
    else:
        choice["text"] = text or ""
    kind = "chat.completion.chunk" if request.kind == "chat" else "text_completion"
    return b"data: " + encode({**opening(request, kind), "choices": [choice]}) + b"\n\n"


def usage_event(request: Request, usage: Usage) -> bytes:
    """The event that carries nothing but usage."""
    kind = "chat.completion.chunk" if request.kind == "chat" else "text_completion"
    told = {**opening(request, kind), "choices": [], "usage": usage_fields(usage)}
    return b"data: " + encode(told) + b"\n\n"


def opening(request: Request, kind: str) -> dict[str, Any]:
    """What every reply begins with."""
    return {"id": request.id, "object": kind, "created": int(time()), "model": request.model}


def usage_fields(usage: Usage) -> dict[str, int]:
    """Usage in OpenAI's words."""
    total = usage.input_tokens + usage.output_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": total,
    }


def vectors(request: Request) -> list[dict[str, Any]]:
    """A small vector of 8 numbers for each text (or list of tokens) in `input`: the same text, the same vector."""
    asked = asked_by(request.body).input
    one = isinstance(asked, str) or not any(isinstance(each, str | list) for each in asked)
    texts = [encode(each) for each in ([asked] if one else asked)]
    return [
        {"object": "embedding", "index": index, "embedding": [round(sum(text[at::8]) / 1000, 3) for at in range(8)]}
        for index, text in enumerate(texts)
    ]
