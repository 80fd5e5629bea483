"""The words in OpenAI's wire shape: what was asked last, and what was answered."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from stepwell.engines.replay import in_form
from stepwell.types import Form, Kind, Request

MAX_TEXT_CHARS = 4000
"""Longer questions are documents: they are not compared by meaning, nor read for facts."""
MORE_THAN_WORDS = frozenset({"logprobs", "top_logprobs", "n", "best_of", "audio", "modalities", "echo", "suffix"})
"""Fields under which an answer to other words would not fit: token by token, or several at once."""

decode = msgspec.json.Decoder().decode
encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Asked(Struct, frozen=True, gc=False):
    """A question taken apart: its last text, and everything else in canonical form."""

    text: str
    rest: bytes


def last_text(request: Request) -> Asked | str:
    """Take the last text out of a question; or say why it has none that can be compared by meaning."""
    if request.kind == "embedding":
        return "embeddings have no meaning to compare"
    fields: dict[str, Any] = decode(request.canonical)
    if not MORE_THAN_WORDS.isdisjoint(fields):
        return f"asks for {min(MORE_THAN_WORDS & fields.keys())}"
    if request.kind == "completion":
        text = fields.pop("prompt")
    else:
        *before, last = fields["messages"]
        if last.get("role") != "user":
            return f"the last message is the {last.get('role')}'s"
        text = only_text(last.pop("content", None))
        fields["messages"] = [*before, last]
    if not isinstance(text, str) or not text.strip():
        return "the last message is no text alone"
    if len(text) > MAX_TEXT_CHARS:
        return f"the last message is longer than {MAX_TEXT_CHARS} characters"
    return Asked(text.strip(), encode_sorted(fields))


def only_text(content: object) -> str | None:
    """The text of a message, written as a string or as its one part; None where there is more, or none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        if part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str):
            return part["text"]
    return None


def answered_text(body: bytes, form: Form, kind: Kind) -> str | None:
    """The one text that a complete reply says; None where it says more (tool calls, several choices), or nothing."""
    try:
        (choice,) = decode(in_form(body, form, "json", kind, include_usage=False))["choices"]
        said = choice["text"] if kind == "completion" else choice["message"]
        if kind == "chat":
            said = None if said.get("tool_calls") or said.get("refusal") else said["content"]
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
        return None
    return said if isinstance(said, str) else None


def with_text(body: bytes, form: Form, kind: Kind, text: str) -> bytes:
    """The JSON form of a reply that says `text` instead. Raises LookupError or ValueError where it has no text."""
    whole = decode(in_form(body, form, "json", kind, include_usage=True))
    choice = whole["choices"][0]
    if kind == "completion":
        choice["text"] = text
    else:
        choice["message"]["content"] = text
    return msgspec.json.encode(whole)
