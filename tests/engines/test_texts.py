"""The words in requests and replies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.engines.replay import in_form
from stepwell.engines.texts import MAX_TEXT_CHARS, Asked, answered_text, last_text, with_text
from stepwell.gateway.openai import parse
from stepwell.types import Caller, Kind, Request

WHO = Caller("t", "p")


def request(fields: dict[str, Any], kind: Kind = "chat") -> Request:
    return parse(kind, json.dumps({"model": "m", **fields}).encode(), id="1", caller=WHO, started_s=0)


def chat(*messages: dict[str, Any], **fields: Any) -> Request:
    return request({"messages": list(messages), **fields})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def reply(message: dict[str, Any], **choice: Any) -> bytes:
    return json.dumps({"id": "1", "choices": [{"index": 0, "message": message, **choice}]}).encode()


def test_the_last_text_is_taken_out_and_all_else_stays() -> None:
    one, other = (
        last_text(chat(user("before"), {"role": "assistant", "content": "ok"}, user(f" {text} "))) for text in "ab"
    )
    assert isinstance(one, Asked)
    assert isinstance(other, Asked)
    assert (one.text, other.text) == ("a", "b")
    assert one.rest == other.rest
    assert b"before" in one.rest


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"tools": [{"type": "function"}]}, {"max_tokens": 5}, {"seed": 1}]
)
def test_whatever_else_differs_keeps_questions_apart(change: dict[str, Any]) -> None:
    one, other = last_text(chat(user("hi"))), last_text(chat(user("hi"), **change))
    assert isinstance(one, Asked)
    assert isinstance(other, Asked)
    assert one.rest != other.rest


def test_history_and_system_prompt_keep_questions_apart() -> None:
    system = {"role": "system", "content": "Be brief."}
    rests = {
        asked.rest
        for asked in (
            last_text(chat(user("hi"))),
            last_text(chat(system, user("hi"))),
            last_text(chat(user("x"), user("hi"))),
        )
        if isinstance(asked, Asked)
    }
    assert len(rests) == 3


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (chat(user("hi"), n=2), "asks for n"),
        (chat(user("hi"), logprobs=True), "asks for logprobs"),
        (chat(user("hi"), {"role": "tool", "content": "5", "tool_call_id": "1"}), "is the tool's"),
        (chat(user([{"type": "image_url", "image_url": {"url": "x"}}])), "no text alone"),
        (chat(user("  ")), "no text alone"),
        (chat(user("x" * (MAX_TEXT_CHARS + 1))), "longer than"),
        (request({"input": "hi"}, "embedding"), "embeddings"),
        (request({"prompt": ["a", "b"]}, "completion"), "no text alone"),
    ],
)
def test_what_cannot_be_compared_says_why(asked: Request, why: str) -> None:
    told = last_text(asked)
    assert isinstance(told, str)
    assert why in told


def test_a_part_of_text_is_text() -> None:
    whole, part = last_text(chat(user("hi"))), last_text(chat(user([{"type": "text", "text": "hi"}])))
    assert isinstance(part, Asked)
    assert isinstance(whole, Asked)
    assert (part.text, part.rest) == (whole.text, whole.rest)


def test_a_prompt_is_a_text() -> None:
    asked = last_text(request({"prompt": "hi"}, "completion"))
    assert isinstance(asked, Asked)
    assert asked.text == "hi"


@given(st.text(min_size=1))
def test_an_answer_is_read_and_written_in_either_form(text: str) -> None:
    body = reply({"role": "assistant", "content": text}, finish_reason="stop")
    assert answered_text(body, "json", "chat") == text
    events = in_form(body, "json", "events", "chat", include_usage=False)
    assert answered_text(events, "events", "chat") == text
    assert answered_text(with_text(events, "events", "chat", "other"), "json", "chat") == "other"


@pytest.mark.parametrize(
    "body",
    [
        reply({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}),
        reply({"role": "assistant", "content": "no", "refusal": "I will not"}),
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}',
        b"no JSON",
        b"{}",
        b'{"choices": [5]}',
    ],
)
def test_an_answer_that_is_more_than_one_text_is_none(body: bytes) -> None:
    assert answered_text(body, "json", "chat") is None
