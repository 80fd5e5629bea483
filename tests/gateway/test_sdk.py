"""The official `openai` package against a running gateway, as its users would use it."""

from __future__ import annotations

import json

import openai
import pytest
from pydantic import BaseModel

from conftest import SCRIPTED, Start, Upstream, event_reply, forwarding, json_reply

ASK = [{"role": "user", "content": "How deep is the well?"}]
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Deep."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}


def client(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0)


def test_chat(serve: Start) -> None:
    with client(serve().url) as ai:
        told = ai.chat.completions.create(model="well", messages=ASK, temperature=0)
    assert told.choices[0].message.content == "The well is deep."
    assert told.usage is not None
    assert told.usage.completion_tokens == 4


def test_second_answer_comes_from_the_cache_and_says_so(serve: Start) -> None:
    with client(serve().url) as ai:
        first = ai.chat.completions.with_raw_response.create(model="well", messages=ASK, temperature=0)
        again = ai.chat.completions.with_raw_response.create(model="well", messages=ASK, temperature=0, user="other")
    assert first.headers["stepwell-step"] == "large"
    assert first.headers["cache-status"] == "stepwell; fwd=miss"
    assert first.headers["stepwell-saved-usd"] == "0"
    assert again.headers["stepwell-step"] == "cache"
    assert again.headers["cache-status"].startswith("stepwell; hit; ttl=")
    assert float(again.headers["stepwell-saved-usd"]) > 0
    assert again.parse() == first.parse()


def test_stream_and_its_replay(serve: Start) -> None:
    with client(serve().url) as ai:
        for _ in range(2):
            chunks = list(ai.chat.completions.create(model="well", messages=ASK, temperature=0, stream=True))
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "The well is deep."
            assert chunks[-1].choices[0].finish_reason == "stop"
            assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_only_where_it_is_asked_for(serve: Start) -> None:
    with client(serve().url) as ai:
        for _ in range(2):
            chunks = list(
                ai.chat.completions.create(
                    model="well", messages=ASK, temperature=0, stream=True, stream_options={"include_usage": True}
                )
            )
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 4
            assert chunks[-1].choices == []


def test_json_kept_is_given_as_events_and_events_kept_as_json(serve: Start) -> None:
    with client(serve().url) as ai:
        told = ai.chat.completions.create(model="well", messages=ASK, temperature=0)
        stream = ai.chat.completions.with_raw_response.create(model="well", messages=ASK, temperature=0, stream=True)
        assert stream.headers["stepwell-step"] == "cache"
        words = "".join(chunk.choices[0].delta.content or "" for chunk in stream.parse())
        other = [{"role": "user", "content": "And how cold?"}]
        list(ai.chat.completions.create(model="well", messages=other, temperature=0, stream=True))
        whole = ai.chat.completions.with_raw_response.create(model="well", messages=other, temperature=0)
    assert words == told.choices[0].message.content
    assert whole.headers["stepwell-step"] == "cache"
    assert whole.parse().choices[0].message.content == "The well is deep."
    assert whole.parse().usage is not None


def test_completions_and_embeddings(serve: Start) -> None:
    with client(serve().url) as ai:
        told = ai.completions.create(model="well", prompt="The well", temperature=0)
        streamed = list(ai.completions.create(model="well", prompt="The well", temperature=0, stream=True))
        vectors = [ai.embeddings.create(model="well", input="water").data[0].embedding for _ in range(2)]
    assert told.choices[0].text == "The well is deep."
    assert "".join(chunk.choices[0].text for chunk in streamed) == "The well is deep."
    assert vectors[0] == vectors[1] != []


def test_models(serve: Start) -> None:
    with client(serve().url) as ai:
        assert [model.id for model in ai.models.list()] == ["well"]
        assert ai.models.retrieve("well").owned_by == "stepwell"
        with pytest.raises(openai.NotFoundError):
            ai.models.retrieve("ocean")


async def test_async_and_streamed_side_by_side(serve: Start) -> None:
    async with openai.AsyncOpenAI(base_url=serve().url, api_key="none", max_retries=0) as ai:
        told = await ai.chat.completions.create(model="well", messages=ASK)
        words = [
            chunk.choices[0].delta.content or ""
            async for chunk in await ai.chat.completions.create(model="well", messages=ASK, stream=True)
        ]
    assert told.choices[0].message.content == "".join(words) == "The well is deep."


def test_tools_go_through_and_come_back(serve: Start, upstream: Upstream) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "depth", "arguments": '{"well": "ours"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    reply = {**CHAT, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    upstream.script = json_reply(json.dumps(reply).encode())
    tool = {"type": "function", "function": {"name": "depth", "parameters": {"type": "object", "properties": {}}}}
    with client(serve(forwarding(upstream)).url) as ai:
        told = ai.chat.completions.create(model="well", messages=ASK, tools=[tool], temperature=0)
        chunks = list(ai.chat.completions.create(model="well", messages=ASK, tools=[tool], temperature=0, stream=True))
    assert told.choices[0].message.tool_calls is not None
    assert told.choices[0].message.tool_calls[0].function.name == "depth"
    calls = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or [] if chunk.choices]
    assert "".join(part.function.arguments or "" for part in calls if part.function) == '{"well": "ours"}'
    assert json.loads(upstream.requests[0][1])["tools"] == [tool]


def test_structured_output(serve: Start, upstream: Upstream) -> None:
    class Depth(BaseModel):
        metres: int

    message = {"role": "assistant", "content": '{"metres": 12}'}
    reply = {**CHAT, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    upstream.script = json_reply(json.dumps(reply).encode())
    with client(serve(forwarding(upstream)).url) as ai:
        told = ai.chat.completions.parse(model="well", messages=ASK, response_format=Depth)
    assert told.choices[0].message.parsed == Depth(metres=12)
    assert json.loads(upstream.requests[0][1])["response_format"]["type"] == "json_schema"


def test_keys_make_tenants_and_tenants_do_not_mix(serve: Start) -> None:
    keys = '[[keys]]\ntenant = "a"\nenv = "KEY_A"\n\n[[keys]]\ntenant = "b"\nenv = "KEY_B"\n'
    gateway = serve(SCRIPTED + keys, KEY_A="sk-a", KEY_B="sk-b")
    for key, step in (("sk-a", "large"), ("sk-a", "cache"), ("sk-b", "large")):
        with client(gateway.url, key) as ai:
            told = ai.chat.completions.with_raw_response.create(model="well", messages=ASK, temperature=0)
            assert told.headers["stepwell-step"] == step
    with client(gateway.url, "sk-c") as ai, pytest.raises(openai.AuthenticationError) as caught:
        ai.chat.completions.create(model="well", messages=ASK)
    assert caught.value.code == "invalid_api_key"
    with client(gateway.url, "sk-c") as ai, pytest.raises(openai.AuthenticationError):
        ai.models.list()


def test_principals_share_only_where_the_route_says_so(serve: Start) -> None:
    keys = '[[keys]]\ntenant = "a"\nenv = "KEY_A"\n\n[[keys]]\ntenant = "a"\nenv = "KEY_B"\n'
    for share, wanted in (("principal", "large"), ("tenant", "cache")):
        config = SCRIPTED.replace('price = "gpt-4o-mini"', f'price = "gpt-4o-mini"\nshare = "{share}"') + keys
        gateway = serve(config, name=share, KEY_A="sk-a", KEY_B="sk-b")
        for key in ("sk-a", "sk-b"):
            with client(gateway.url, key) as ai:
                told = ai.chat.completions.with_raw_response.create(model="well", messages=ASK, temperature=0)
        assert told.headers["stepwell-step"] == wanted


def test_temperature_above_zero_is_not_kept(serve: Start) -> None:
    with client(serve().url) as ai:
        for _ in range(2):
            told = ai.chat.completions.with_raw_response.create(model="well", messages=ASK)
            assert told.headers["stepwell-step"] == "large"
            assert told.headers["cache-status"] == 'stepwell; fwd=bypass; detail="temperature above 0"'


def test_error_of_the_engine_reaches_the_caller(serve: Start, upstream: Upstream) -> None:
    said = b'{"error":{"message":"the context is too long","type":"invalid_request_error","param":"messages","code":"ctx"}}'
    upstream.script = json_reply(said, "400 Bad Request")
    with client(serve(forwarding(upstream)).url) as ai, pytest.raises(openai.BadRequestError) as caught:
        ai.chat.completions.create(model="well", messages=ASK)
    assert caught.value.code == "ctx"
    assert len(upstream.requests) == 1


def test_stream_that_breaks_raises_in_the_sdk_and_is_not_kept(serve: Start, upstream: Upstream) -> None:
    event = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"De"},"finish_reason":null}]}\n\n'
    upstream.script = event_reply(event, event, gap_s=0.02, ends=False)
    with client(serve(forwarding(upstream)).url) as ai:
        for _ in range(2):
            chunks = ai.chat.completions.create(model="well", messages=ASK, temperature=0, stream=True)
            assert [next(chunks).choices[0].delta.content for _ in range(2)] == ["De", "De"]
            with pytest.raises(openai.APIError, match="mid-reply"):
                next(chunks)
    assert len(upstream.requests) == 2
