"""A kept reply in the form that is asked for: JSON becomes the events of a stream, and the other way round.

Fields nobody here knows go along: what a stream would have said in a delta is said in a delta.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from stepwell.types import Form, Kind, Usage

DONE = b"data: [DONE]\n\n"
WORDS_A_FRAME = 4
STREAM_OBJECT = {"chat": "chat.completion.chunk", "completion": "text_completion"}
WHOLE_OBJECT = {"chat": "chat.completion", "completion": "text_completion"}

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode
pieces_of = re.compile(rf"\s*\S+(?:\s+\S+){{0,{WORDS_A_FRAME - 1}}}(?:\s+$)?|\s+").findall


def in_form(body: bytes, has: Form, wants: Form, kind: Kind, *, include_usage: bool) -> bytes:
    """Give a kept body the form `wants`; events carry usage only with `include_usage`."""
    if has == "json" and wants == "json":
        return body
    if wants == "json":
        return to_json(body, kind)
    events = to_events(body, kind) if has == "json" else body
    return events if include_usage else without_usage(events)


def without_usage(events: bytes) -> bytes:
    """Leave out the event that carries nothing but usage."""
    if b'"usage"' not in events:
        return events
    return b"".join(event for event in split_events(events) if not is_usage(event))


def is_usage(event: bytes) -> bool:
    """Say whether an event has usage and no choices."""
    if b'"usage"' not in event:
        return False
    told = payload(event)
    return isinstance(told, dict) and bool(told.get("usage")) and not told.get("choices")


def usage_of(body: bytes, form: Form) -> Usage | None:
    """Read the usage of a kept reply, where it has one."""
    told = [decode(body)] if form == "json" else [payload(event) for event in split_events(body)]
    for part in reversed(told):
        usage = part.get("usage") if isinstance(part, dict) else None
        if usage:
            return Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
    return None


def split_events(events: bytes) -> list[bytes]:
    """Cut a whole stream into its events, each with the empty line that ends it."""
    return [event + b"\n\n" for event in events.replace(b"\r\n", b"\n").split(b"\n\n") if event.strip()]


def payload(event: bytes) -> Any:  # noqa: ANN401 - whatever JSON the engine sent
    """Read the JSON of one event; None for a comment and for the end mark."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    text = b"\n".join(lines)
    return decode(text) if text and text != b"[DONE]" else None


def to_events(body: bytes, kind: Kind) -> bytes:
    """Tell a JSON reply as a stream: for each choice its words a few at a time, then its end; then usage."""
    whole: dict[str, Any] = decode(body)
    usage = whole.pop("usage", None)
    choices = whole.pop("choices", [])
    head = {**whole, "object": STREAM_OBJECT[kind]}
    told = deltas if kind == "chat" else texts
    frames = [{**head, "choices": [part]} for choice in choices for part in told(choice)]
    if usage:
        frames.append({**head, "choices": [], "usage": usage})
    return b"".join(b"data: " + encode(frame) + b"\n\n" for frame in frames) + DONE


def deltas(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One chat choice as the deltas of a stream."""
    message = dict(choice.get("message") or {})
    index = choice.get("index", 0)
    content = message.pop("content", None)
    calls = message.pop("tool_calls", None) or []
    yield {"index": index, "delta": {"content": "" if content is not None else None, **message}, "finish_reason": None}
    for piece in pieces_of(content or ""):
        yield {"index": index, "delta": {"content": piece}, "finish_reason": None}
    for place, call in enumerate(calls):
        yield {"index": index, "delta": {"tool_calls": [{"index": place, **call}]}, "finish_reason": None}
    rest = {name: value for name, value in choice.items() if name not in ("message", "index")}
    yield {"index": index, "delta": {}, **rest}


def texts(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One completion choice as the texts of a stream."""
    index = choice.get("index", 0)
    for piece in pieces_of(choice.get("text") or ""):
        yield {"index": index, "text": piece, "logprobs": None, "finish_reason": None}
    yield {"logprobs": None, **choice, "text": ""}


def to_json(events: bytes, kind: Kind) -> bytes:
    """Put the events of a stream together into the JSON reply they tell."""
    frames = [frame for frame in map(payload, split_events(events)) if isinstance(frame, dict)]
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for frame in frames:
        whole.update({name: value for name, value in frame.items() if name != "choices" and value is not None})
        for part in frame.get("choices") or []:
            choice = choices.setdefault(part.get("index", 0), {"index": part.get("index", 0)})
            merge(choice, spoken(part))
    whole["object"] = WHOLE_OBJECT[kind]
    whole["choices"] = [finished(choices[index], kind) for index in sorted(choices)]
    return encode(whole)


def spoken(part: dict[str, Any]) -> dict[str, Any]:
    """What one streamed choice adds: its delta is called message in the whole reply."""
    named = {("message" if name == "delta" else name): value for name, value in part.items() if name != "index"}
    return {name: value for name, value in named.items() if value is not None}


def merge(into: dict[str, Any], part: dict[str, Any]) -> None:
    """Add one part of a reply: texts grow, lists grow or merge by index, what is fixed stays."""
    for name, value in part.items():
        had = into.get(name)
        if isinstance(value, dict) and isinstance(had, dict):
            merge(had, value)
        elif isinstance(value, dict):
            into[name] = {}
            merge(into[name], value)
        elif isinstance(value, list):
            into[name] = grown(had if isinstance(had, list) else [], value)
        elif isinstance(value, str) and isinstance(had, str) and name not in FIXED:
            into[name] = had + value
        elif value is not None or name not in into:
            into[name] = value


FIXED = frozenset(
    {"id", "object", "model", "role", "type", "finish_reason", "system_fingerprint", "service_tier", "name"}
)
"""Texts that are said anew in every event, or once and whole; all others grow."""


def grown(had: list[Any], more: Iterable[Any]) -> list[Any]:
    """Tool calls carry an index and grow in place; other lists (log probabilities) grow at their end."""
    for item in more:
        same = [old for old in had if isinstance(item, dict) and "index" in item and old.get("index") == item["index"]]
        if same:
            merge(same[0], item)
        elif isinstance(item, dict):
            had.append({})
            merge(had[-1], item)
        else:
            had.append(item)
    return had


def finished(choice: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """Fill in what a whole choice always has, and take away what only a stream needs."""
    if kind == "completion":
        return {"text": "", "logprobs": None, "finish_reason": None, **choice}
    message = {"role": "assistant", "content": None, **choice.pop("message", {})}
    for call in message.get("tool_calls") or []:
        call.pop("index", None)
    return {"message": message, "logprobs": None, "finish_reason": None, **choice}
