"""The exact cache: which questions are equal, who may share an answer, and what is kept at all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.cache.coalesce import Flights
from stepwell.cache.exact import Exact
from stepwell.cache.key import key, scope
from stepwell.engines import replay
from stepwell.errors import EngineUnavailable
from stepwell.gateway import openai
from stepwell.steps.cache import Cache, Rule
from stepwell.store.memory import Memory
from stepwell.types import Answer, Caller, Defer, Kind, Outcome, Proposal, Request, Settled, Usage

CALLER = Caller("acme", "anna")
ASK: dict[str, Any] = {"model": "well", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
KEEP = Rule(route=b"r", share="principal", keep=True, keep_sampled=False, ttl_s=60)
CHAT = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Deep, I say."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }
).encode()


def request(caller: Caller = CALLER, kind: Kind = "chat", id: str = "1", **fields: Any) -> Request:  # noqa: A002
    return openai.parse(kind, json.dumps({**ASK, **fields}).encode(), id=id, caller=caller, started_s=0.0)


def key_of(asked: Request, route: bytes = b"r", share: Any = "principal") -> bytes:
    return key(scope(route, asked.caller, share), asked)


def settled(
    asked: Request, *, complete: bool = True, status: int = 200, body: bytes = CHAT, error: Any = None
) -> Settled:
    answer = None if error else Answer(form="json", body=body, usage=Usage(5, 3), engine="up")
    return Settled(
        request=asked,
        outcome=Outcome(answer, (), error),
        form="json",
        body=body,
        usage=Usage(5, 3),
        complete=complete,
        status=status,
        seconds=0.1,
    )


def cache(rule: Rule = KEEP) -> Cache:
    return Cache(Exact(Memory(1_000_000), None), {"well": rule}, lambda _model, _usage: 0.5, 1000)


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


async def test_a_miss_leads_its_answer_is_kept_and_then_hit() -> None:
    step, asked = cache(), request()
    assert await step.propose(asked) == Defer("miss")
    step.settle(settled(asked))
    told = await step.propose(request(id="2"))
    assert isinstance(told, Proposal)
    assert (told.evidence.kind, told.evidence.detail, told.answer.body) == ("exact", "hit", CHAT)
    assert told.answer.saved_usd == 0.5


async def test_json_is_given_as_events_and_back() -> None:
    step, asked = cache(), request()
    await step.propose(asked)
    step.settle(settled(asked))
    told = await step.propose(request(id="2", stream=True))
    assert isinstance(told, Proposal)
    assert told.answer.form == "events"
    assert told.answer.body.endswith(replay.DONE)
    assert b'"usage"' not in told.answer.body
    counted = await step.propose(request(id="3", stream=True, stream_options={"include_usage": True}))
    assert isinstance(counted, Proposal)
    assert replay.usage_of(counted.answer.body, "events") == Usage(5, 3)
    whole = json.loads(replay.to_json(counted.answer.body, "chat"))
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Deep, I say."}
    assert whole["usage"]["total_tokens"] == 8


@pytest.mark.parametrize(
    "ended",
    [
        {"complete": False},
        {"status": 500},
        {"body": b""},
        {"body": b"x" * 2000},
        {"error": EngineUnavailable("no")},
    ],
)
async def test_what_is_not_a_whole_good_answer_is_not_kept(ended: dict[str, Any]) -> None:
    step, asked = cache(), request()
    await step.propose(asked)
    step.settle(settled(asked, **ended))
    assert await step.propose(request(id="2")) == Defer("miss")
    assert list(step.leading) == ["2"]


async def test_sampled_answers_are_kept_only_where_the_route_says_so() -> None:
    assert await cache().propose(request(temperature=0.7)) == Defer("bypass: temperature above 0")
    assert await cache(msgspec.structs.replace(KEEP, keep_sampled=True)).propose(request(temperature=0.7)) == Defer(
        "miss"
    )
    assert await cache(msgspec.structs.replace(KEEP, keep=False)).propose(request()) == Defer(
        "bypass: the route keeps no answers"
    )


async def test_followers_get_the_leaders_answer() -> None:
    step, leader = cache(), request()
    await step.propose(leader)
    followers = [asyncio.ensure_future(step.propose(request(id=str(number)))) for number in range(2, 6)]
    await asyncio.sleep(0)
    followers[0].cancel()
    await asyncio.sleep(0)
    step.settle(settled(leader))
    told = await asyncio.gather(*followers[1:])
    assert all(isinstance(one, Proposal) and one.evidence.detail == "collapsed" for one in told)


async def test_followers_get_the_leaders_error_and_go_no_further() -> None:
    step, leader = cache(), request()
    await step.propose(leader)
    follower = asyncio.ensure_future(step.propose(request(id="2")))
    await asyncio.sleep(0)
    error = EngineUnavailable("no")
    step.settle(settled(leader, error=error, complete=False, status=502))
    told = await follower
    assert isinstance(told, Defer)
    assert (told.error, told.final) == (error, True)


async def test_where_the_leader_leaves_one_follower_leads() -> None:
    step, leader = cache(), request()
    await step.propose(leader)
    followers = [asyncio.ensure_future(step.propose(request(id=str(number)))) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    gone = Settled(
        request=leader,
        outcome=Outcome(None, ()),
        form="json",
        body=b"",
        usage=None,
        complete=False,
        status=499,
        seconds=0,
    )
    step.settle(gone)
    await asyncio.sleep(0.01)
    assert sum(follower.done() for follower in followers) == 1
    (lead,) = step.leading
    step.settle(settled(request(id=lead)))
    told = await asyncio.gather(*followers)
    assert sum(isinstance(one, Proposal) for one in told) == 2


def test_only_the_leader_can_land_a_flight() -> None:
    flights = Flights()
    assert flights.leads(b"k", "1")
    assert not flights.leads(b"k", "2")
    flights.land(b"k", "2", None)
    assert not flights.leads(b"k", "3")
    flights.land(b"k", "1", None)
    assert flights.leads(b"k", "3")


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
