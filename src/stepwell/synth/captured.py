"""A settled request as a row to learn from, with who answered it, at which step, and what that cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from stepwell.engines.replay import in_form
from stepwell.engines.texts import answered_text
from stepwell.synth.mask import masked
from stepwell.synth.row import Message, Row, made
from stepwell.synth.seen import LARGE, Seen
from stepwell.types import Kind

MOST_CHARS = 32_768
"""Longer talks are documents."""
MORE_THAN_TEXT = ("tools", "functions", "response_format", "audio", "modalities", "logprobs")
"""Fields under which an answer is more than what a student can be taught to say."""
TOLD = ("temperature", "top_p", "max_tokens", "max_completion_tokens")

decode = msgspec.json.Decoder().decode


def row_of(seen: Seen, licence: str) -> Row | None:
    """The row, masked; None for what is no question and answer in words."""
    asked = decode(seen.asked)
    completion = answered_text(seen.answered, seen.form, seen.kind)
    talk = turns(asked, seen.kind)
    if completion is None or not completion.strip() or talk is None:
        return None
    if (asked.get("n") or 1) > 1 or any(asked.get(name) for name in MORE_THAN_TEXT):
        return None
    texts = [content for _, content in talk]
    if sum(map(len, texts)) + len(completion) > MOST_CHARS:
        return None
    *shown, said = masked([*texts, completion.strip()])
    messages = [Message(role, text) for (role, _), text in zip(talk, shown, strict=True)]
    return made(
        shown[-1],
        said,
        source="captured",
        licence=licence,
        messages=(*messages, Message("assistant", said)),
        params=params(seen, asked),
        usd=seen.usd,
        tokens_in=seen.tokens_in,
        tokens_out=seen.tokens_out,
        **origin(seen),
    )


def turns(asked: dict[str, Any], kind: Kind) -> list[tuple[str, str]] | None:
    """Roles and texts of what was asked, the user's question last; None where it is more than words."""
    if kind == "completion":
        prompt = asked.get("prompt")
        return [("user", prompt)] if isinstance(prompt, str) and prompt.strip() else None
    found = [(message["role"], text_of(message)) for message in asked["messages"]]
    if found[-1][0] != "user" or not found[-1][1]:
        return None
    talk = [(role, text) for role, text in found if text is not None]
    return talk if len(talk) == len(found) else None


def text_of(message: dict[str, Any]) -> str | None:
    """The text of a message; None where it is none."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None
    return content if isinstance(content, str) and not message.get("tool_calls") else None


def params(seen: Seen, asked: dict[str, Any]) -> dict[str, Any]:
    """How it came about."""
    told = {name: asked[name] for name in TOLD if isinstance(asked.get(name), int | float)}
    at = datetime.fromtimestamp(seen.at_s, UTC).isoformat(timespec="seconds")
    return {"step": seen.step, "engine": seen.engine, "route": seen.route, "request": seen.request, "at": at, **told}


def origin(seen: Seen) -> dict[str, Any]:
    """Which model said it, as the reply tells."""
    whole = decode(in_form(seen.answered, seen.form, "json", seen.kind, include_usage=False))
    model = str(whole.get("model") or seen.route)
    return {"generator": model, "generator_rev": str(whole.get("system_fingerprint") or seen.engine or model)}


def is_teachers(row: Row) -> bool:
    """Whether the large model itself said it: the answers of other steps are no teacher's."""
    return row.source == "captured" and row.params.get("step") == LARGE
