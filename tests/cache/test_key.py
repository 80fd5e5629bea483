"""The key of a question: which questions are equal, and who may share an answer; and replies told as streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.cache.key import key, scope
from stepwell.engines import replay
from stepwell.gateway import openai
from stepwell.types import Caller, Kind, Request

CALLER = Caller("acme", "anna")
ASK: dict[str, Any] = {"model": "well", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


def request(caller: Caller = CALLER, kind: Kind = "chat", id: str = "1", **fields: Any) -> Request:  # noqa: A002
    return openai.parse(kind, json.dumps({**ASK, **fields}).encode(), id=id, caller=caller, started_s=0.0)


def key_of(asked: Request, route: bytes = b"r", share: Any = "principal") -> bytes:
    return key(scope(route, asked.caller, share), asked)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "someone"},
        {"stream": True},
        {"stream": False},
        {"stream_options": {"include_usage": True}},
        {"top_p": 1},
        {"n": 1},
        {"presence_penalty": 0},
        {"temperature": 0.0},
        {"max_tokens": None},
        {"logit_bias": {}},
        {"messages": [{"content": "hi", "role": "user"}]},
    ],
)
def test_equal_questions_have_one_key(fields: dict[str, Any]) -> None:
    assert key_of(request(**fields)) == key_of(request())


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "other"},
        {"messages": [{"role": "user", "content": "hi!"}]},
        {"messages": [{"role": "system", "content": "x"}, *ASK["messages"]]},
        {"temperature": 0.1},
        {"top_p": 0.9},
        {"seed": 1},
        {"n": 2},
        {"max_tokens": 5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"something_new": 1},
        {"something_new": True},
        {"something_new": "1"},
    ],
)
def test_other_questions_have_other_keys(fields: dict[str, Any]) -> None:
    assert key_of(request(**fields)) != key_of(request())


def test_tenant_principal_route_and_kind_are_in_the_key() -> None:
    mine, theirs, other = request(), request(Caller("acme", "otto")), request(Caller("evil", "anna"))
    assert len({key_of(mine), key_of(theirs), key_of(other), key_of(mine, b"r2")}) == 4
    assert key_of(mine, share="tenant") == key_of(theirs, share="tenant") != key_of(other, share="tenant")
    asked = {"prompt": "hi", "input": "hi"}
    assert key_of(request(kind="completion", **asked)) != key_of(request(kind="embedding", **asked))


@given(st.text(), st.text(), st.text(), st.text())
def test_names_cannot_be_shifted_from_one_field_of_the_scope_into_another(a: str, b: str, c: str, d: str) -> None:
    assert (scope(b"r", Caller(a, b), "principal") == scope(b"r", Caller(c, d), "principal")) == ((a, b) == (c, d))


TEXTS = st.text(max_size=60)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(min_size=1, max_size=5),
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": st.text(min_size=1, max_size=5), "arguments": TEXTS}),
        }
    ),
    max_size=3,
)


@given(st.lists(st.tuples(TEXTS, CALLS, st.sampled_from(["stop", "length", "tool_calls"])), min_size=1, max_size=3))
def test_a_reply_told_as_a_stream_and_put_together_again_says_the_same(told: list[tuple[str, Any, str]]) -> None:
    choices = []
    for index, (text, calls, finish) in enumerate(told):
        message: dict[str, Any] = {"role": "assistant", "content": text, "odd": {"a": [1]}}
        if calls:
            message["tool_calls"] = calls
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": finish})
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "new": "field"}
    events = replay.to_events(json.dumps(whole).encode(), "chat")
    again = json.loads(replay.to_json(events, "chat"))
    assert {**again, "choices": None} == {**whole, "choices": None}
    assert again["choices"] == choices
