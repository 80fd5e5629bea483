"""`store: true` with the official `openai` package: what is stored, listed, changed, deleted, and for whom."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from conftest import SCRIPTED, Gateway, Start, Upstream, event_reply, forwarding, json_reply

KEYS = '[[keys]]\ntenant = "a"\nenv = "KEY_A"\n\n[[keys]]\ntenant = "b"\nenv = "KEY_B"\n'
ASK = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How deep is the well?"}]
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Deep."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}


def client(gateway: Gateway, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0)


def ask(ai: openai.OpenAI, text: str = "How deep?", **more: Any) -> Any:
    asked: Any = [{"role": "user", "content": text}]
    return ai.chat.completions.create(model="well", messages=asked, temperature=0, store=True, **more)


def test_an_answer_is_stored_with_everything(serve: Start) -> None:
    with client(serve()) as ai:
        told = ai.chat.completions.create(
            model="well", messages=ASK, temperature=0, store=True, metadata={"tour": "a"}, user="anna"
        )
        kept = ai.chat.completions.retrieve(told.id)
        messages = list(ai.chat.completions.messages.list(told.id, order="desc"))
    assert kept.id == told.id
    assert kept.choices == told.choices
    assert kept.usage == told.usage
    assert kept.created == told.created
    more: Any = kept.to_dict()
    assert more["metadata"] == {"tour": "a"}
    assert more["stepwell"] == {"step": "large", "engine": "scripted"}
    assert more["temperature"] == 0
    assert more["input_user"] == "anna"
    assert [message.content for message in messages] == ["How deep is the well?", "Be short."]
    assert [message.id for message in messages] == [f"{told.id}-1", f"{told.id}-0"]


def test_every_step_gives_ids_of_its_own_in_both_forms(serve: Start) -> None:
    with client(serve()) as ai:
        first = ai.chat.completions.with_raw_response.create(model="well", messages=ASK, temperature=0, store=True)
        again = ai.chat.completions.with_raw_response.create(
            model="well", messages=ASK, temperature=0, store=True, metadata={"tour": "b"}
        )
        ids = {chunk.id for chunk in ai.chat.completions.create(
            model="well", messages=ASK, temperature=0, store=True, stream=True)}  # fmt: skip
        fresh = {chunk.id for chunk in ai.chat.completions.create(
            model="well", messages=ASK[1:], temperature=0, store=True, stream=True,
            stream_options={"include_usage": True})}  # fmt: skip
        steps = ["large", "cache", "cache", "large"]
        assert again.headers["stepwell-step"] == "cache", "metadata does not change the question"
        names = [first.parse().id, again.parse().id, *ids, *fresh]
        assert len(set(names)) == 4
        kept = [ai.chat.completions.retrieve(name) for name in names]
    assert [each.to_dict()["stepwell"]["step"] for each in kept] == steps
    assert [each.choices[0].message.content for each in kept] == ["The well is deep."] * 4
    assert all(each.usage is not None and each.usage.completion_tokens == 4 for each in kept)


def test_lists_are_paged_filtered_and_ordered(serve: Start) -> None:
    with client(serve()) as ai:
        names = [ask(ai, f"Question {at}?", metadata={"tour": "ab"[at % 2], "n": str(at)}).id for at in range(7)]
        assert [each.id for each in ai.chat.completions.list(limit=3)] == names, "the SDK turns the pages"
        assert [each.id for each in ai.chat.completions.list(order="desc", limit=2)] == names[::-1]
        assert [each.id for each in ai.chat.completions.list(metadata={"tour": "b"})] == names[1::2]
        assert [each.id for each in ai.chat.completions.list(metadata={"tour": "b", "n": "3"})] == [names[3]]
        assert list(ai.chat.completions.list(metadata={"tour' OR 1=1 --": "b"})) == []
        assert [each.id for each in ai.chat.completions.list(model="well", after=names[4])] == names[5:]
        assert list(ai.chat.completions.list(model="ocean")) == []
        one = ai.chat.completions.list(limit=2)
        assert (one.has_more, one.to_dict()["first_id"]) == (True, names[0])
        for wrong in (
            {"limit": 0},
            {"limit": 101},
            {"limit": "000000001999"},
            {"limit": "1" * 5000},
            {"after": "chatcmpl-x"},
            {"order": "sideways"},
        ):
            with pytest.raises(openai.BadRequestError):
                ai.chat.completions.list(**wrong)  # type: ignore[arg-type]


def test_metadata_is_changed_and_answers_are_deleted(serve: Start) -> None:
    with client(serve()) as ai:
        name = ask(ai, metadata={"tour": "a"}).id
        changed = ai.chat.completions.update(name, metadata={"tour": "c"})
        assert changed.to_dict()["metadata"] == {"tour": "c"}
        assert [each.id for each in ai.chat.completions.list(metadata={"tour": "c"})] == [name]
        assert ai.chat.completions.delete(name).deleted
        for gone in (ai.chat.completions.retrieve, ai.chat.completions.delete, ai.chat.completions.messages.list):
            with pytest.raises(openai.NotFoundError):
                gone(name)


def test_tenants_see_only_their_own(serve: Start) -> None:
    gateway = serve(SCRIPTED + KEYS, KEY_A="sk-a", KEY_B="sk-b")
    with client(gateway, "sk-a") as a, client(gateway, "sk-b") as b:
        name = ask(a, metadata={"tour": "a"}).id
        assert [each.id for each in a.chat.completions.list()] == [name]
        assert list(b.chat.completions.list()) == []
        with pytest.raises(openai.NotFoundError):
            b.chat.completions.retrieve(name)
        with pytest.raises(openai.NotFoundError):
            b.chat.completions.messages.list(name)
        with pytest.raises(openai.NotFoundError):
            b.chat.completions.delete(name)
        with pytest.raises(openai.NotFoundError):
            b.chat.completions.update(name, metadata={})
        with pytest.raises(openai.BadRequestError):
            b.chat.completions.list(after=name)
        assert a.chat.completions.retrieve(name).id == name
    with client(gateway, "sk-c") as c, pytest.raises(openai.AuthenticationError):
        c.chat.completions.list()


def test_only_who_asks_is_stored_and_only_complete_answers(serve: Start, upstream: Upstream) -> None:
    upstream.script = event_reply(b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"De"}}]}\n\n', ends=False)
    with client(serve(forwarding(upstream))) as ai:
        with pytest.raises(openai.APIError):
            list(ask(ai, stream=True))
        upstream.script = json_reply(b'{"error":{"message":"no"}}', "400 Bad Request")
        with pytest.raises(openai.BadRequestError):
            ask(ai, "No?")
        upstream.script = json_reply(json.dumps(CHAT).encode())
        ai.chat.completions.create(model="well", messages=ASK, metadata={"tour": "a"})
        ai.chat.completions.create(model="well", messages=ASK, store=False)
        assert list(ai.chat.completions.list()) == []


def test_engines_are_not_told(serve: Start, upstream: Upstream) -> None:
    upstream.script = json_reply(json.dumps(CHAT).encode())
    with client(serve(forwarding(upstream))) as ai:
        told = ask(ai, metadata={"tour": "a"}, seed=7)
        ai.chat.completions.create(model="well", messages=ASK, metadata={"tour": "a"})
        kept = ai.chat.completions.retrieve(told.id)
    bodies = [json.loads(body) for _, body in upstream.requests]
    assert [body.keys() & {"store", "metadata"} for body in bodies] == [set(), set()]
    assert bodies[0]["seed"] == 7
    assert (kept.model, kept.to_dict()["seed"]) == ("m-2026", 7)
    with client(serve(forwarding(upstream), name="second")) as ai:
        assert list(ai.chat.completions.list(model="m-2026")) == []


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"store": "yes"}, "store"),
    ({"store": True, "metadata": {"n": 1}}, "metadata"),
    ({"store": True, "metadata": []}, "metadata"),
    ({"store": True, "metadata": {str(at): "" for at in range(17)}}, "metadata"),
    ({"store": True, "metadata": {"x" * 65: ""}}, "metadata"),
    ({"store": True, "metadata": {"x": "y" * 513}}, "metadata"),
)


def test_what_is_wrong_is_named(serve: Start) -> None:
    with client(serve()) as ai:
        for more, param in WRONG:
            with pytest.raises(openai.BadRequestError) as caught:
                ai.chat.completions.create(model="well", messages=ASK, extra_body=more)
            assert caught.value.param == param


def test_a_tool_call_and_parts_are_stored_as_they_were(serve: Start, upstream: Upstream) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "depth", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    reply = {**CHAT, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    upstream.script = json_reply(json.dumps(reply).encode())
    parts = [{"type": "text", "text": "How "}, {"type": "text", "text": "deep?"}]
    with client(serve(forwarding(upstream))) as ai:
        told = ai.chat.completions.create(model="well", messages=[{"role": "user", "content": parts}], store=True)
        kept = ai.chat.completions.retrieve(told.id)
        (asked,) = ai.chat.completions.messages.list(told.id)
    assert kept.choices[0].message.tool_calls == told.choices[0].message.tool_calls
    assert told.choices[0].message.tool_calls is not None
    assert told.choices[0].message.tool_calls[0].id == "call_1", "only the answer's own id is ours"
    assert asked.content == "How deep?"
    assert [part.text for part in asked.content_parts or []] == ["How ", "deep?"]  # type: ignore[union-attr]


async def test_the_async_client(serve: Start) -> None:
    async with openai.AsyncOpenAI(base_url=serve().url, api_key="none", max_retries=0) as ai:
        told = await ai.chat.completions.create(model="well", messages=ASK, store=True)
        assert [each.id async for each in ai.chat.completions.list()] == [told.id]
        assert (await ai.chat.completions.retrieve(told.id)).choices == told.choices


def test_a_kill_loses_nothing_that_was_written(serve: Start) -> None:
    gateway = serve()
    with client(gateway) as ai:
        names = [ask(ai, f"Question {at}?").id for at in range(20)]
        assert len(list(ai.chat.completions.list())) == 20  # reading writes what waits
    gateway.stop(signal.SIGKILL)
    with client(serve()) as ai:
        assert [each.id for each in ai.chat.completions.list(limit=50)] == names


def test_a_stop_writes_what_waits(serve: Start) -> None:
    slow = SCRIPTED + "[stored]\nflush_ms = 60000\n"
    gateway = serve(slow)
    with client(gateway) as ai:
        name = ask(ai).id
    assert gateway.stop() == 0
    with client(serve(slow)) as ai:
        assert ai.chat.completions.retrieve(name).id == name


def test_a_damaged_file_is_set_aside(serve: Start, tmp_path: Path) -> None:
    folder = tmp_path / "gateway" / "stepwell-data"
    folder.mkdir(parents=True)
    (folder / "stored.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
    with client(serve()) as ai:
        ask(ai)
        until(lambda: len(list_or_none(ai) or []) == 1)
    assert list(folder.glob("stored.db.damaged-*"))


def list_or_none(ai: openai.OpenAI) -> list[Any] | None:
    try:
        return list(ai.chat.completions.list())
    except openai.InternalServerError:  # the file is set aside with its first use
        return None


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_the_oldest_are_let_go(serve: Start) -> None:
    with client(serve(SCRIPTED + "[stored]\nfile_bytes = 300000\n")) as ai:
        names = [ask(ai, f"{at} {'x' * 5000}").id for at in range(60)]
        left = [each.id for each in ai.chat.completions.list(limit=100)]
        assert len(left) < 60
        until(lambda: ask(ai, "last").id in [each.id for each in ai.chat.completions.list(order="desc", limit=5)])
    assert left == names[-len(left) :] if left else True


def test_nothing_is_stored_where_that_is_off(serve: Start) -> None:
    with client(serve(SCRIPTED + '[stored]\npath = ""\n')) as ai:
        assert ask(ai).choices[0].message.content == "The well is deep."
        with pytest.raises(openai.NotFoundError, match="stored"):
            ai.chat.completions.list()


def test_other_methods_are_refused(serve: Start) -> None:
    with client(serve()) as ai:
        for path, allowed in (("/chat/completions", "GET, POST"), ("/chat/completions/x/messages", "GET")):
            with pytest.raises(openai.APIStatusError) as caught:
                ai.put(path, cast_to=object)
            assert caught.value.status_code == 405
            assert caught.value.response.headers["allow"] == allowed
        with pytest.raises(openai.NotFoundError):
            ai.get("/chat/completions/x/y/z", cast_to=object)
