"""A settled request as the row under which its answer is stored."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from stepwell.engines.openai import usage_fields
from stepwell.engines.replay import in_form
from stepwell.gateway.stored_id import id_of
from stepwell.gateway.stored_rows import Row
from stepwell.types import Settled

log = logging.getLogger(__name__)

TOLD = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
)
"""What a stored answer tells of its request."""

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def made(settled: Settled, at_s: float) -> Row | None:
    """A row; None, and a line in the log, for what cannot be read as an answer."""
    request = settled.request
    try:
        whole = decode(in_form(settled.body, settled.form, "json", "chat", include_usage=True))
        asked = decode(request.body)
        told = {name: asked.get(name) for name in TOLD}
        usage = whole.get("usage") or (usage_fields(settled.usage) if settled.usage else None)
        named = {"id": id_of(request.id), "object": "chat.completion", "request_id": request.id}
        visit = settled.outcome.visits[-1]
        answer = settled.outcome.answer
        origin = {"step": visit.step, "engine": answer.engine if answer else ""}
        completion = {**told, "input_user": asked.get("user"), **whole, **named, "usage": usage, "stepwell": origin}
        completion.setdefault("created", int(at_s))
        completion.setdefault("model", request.model)
        messages = [numbered(request.id, *each) for each in enumerate(asked["messages"])]
    except Exception:  # one answer that cannot be read must not hold up the others
        log.exception("request %s cannot be stored", request.id)
        return None
    metadata = (request.stored or b"{}").decode()
    model = str(completion["model"])
    who = request.caller.tenant
    return Row(who, id_of(request.id), at_s, request.model, model, metadata, encode(completion), encode(messages))


def numbered(request_id: str, at: int, message: dict[str, Any]) -> dict[str, Any]:
    """A message as a stored one."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    text = "".join(each.get("text") or "" for each in parts if isinstance(each, dict)) if parts is not None else content
    return {**message, "id": f"{id_of(request_id)}-{at}", "content": text, "content_parts": parts}
