"""OpenAI's wire shape on the engine's side: bodies that go out, events that come back."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from asks import OK, STREAM, all_of, ask, engine, event
from hypothesis import given
from hypothesis import strategies as st

from conftest import Upstream, event_reply, json_reply
from stepwell.engines import openai as wire
from stepwell.errors import EngineBadReply
from stepwell.gateway import openai
from stepwell.types import Caller, Chunk, Usage


async def test_the_body_goes_on_byte_for_byte(upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    odd = b'{"model":"well", "messages":[{"role":"user","content":"caf\\u00e9 \\ud83d\\ude00"}],\n "seed":1e2,"x":[1.0,{"a":null}],"temperature":0.10}'
    request = openai.parse("chat", odd, id="1", caller=Caller("t", "p"), started_s=0.0)
    await all_of(engine(upstream.url), request)
    assert upstream.requests[-1][1] == odd
    await all_of(engine(upstream.url, model="theirs"), request)
    sent = upstream.requests[-1][1]
    for part in (
        b'"model":"theirs"',
        b'"seed":1e2',
        b'"x":[1.0,{"a":null}]',
        b'"temperature":0.10',
        b"caf\\u00e9 \\ud83d\\ude00",
    ):
        assert part in sent


async def test_a_stream_is_told_to_count_unless_the_caller_said_so(upstream: Upstream) -> None:
    upstream.script = event_reply(*STREAM)
    await all_of(engine(upstream.url), ask(stream=True))
    assert json.loads(upstream.requests[-1][1])["stream_options"] == {"include_usage": True}
    asked = ask(stream=True, stream_options={"include_usage": True, "more": 1})
    await all_of(engine(upstream.url), asked)
    assert upstream.requests[-1][1] == asked.body


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False, "include_obfuscation": False}])
def test_the_callers_other_stream_options_stay(options: dict[str, Any] | None) -> None:
    told = json.loads(wire.body_for(ask(stream=True, stream_options=options), ""))
    assert told["stream_options"] == {**(options or {}), "include_usage": True}


def test_only_the_option_itself_counts_not_its_name_somewhere_inside() -> None:
    asked = ask(stream=True, metadata={"stream_options": {"include_usage": True}})
    assert json.loads(wire.body_for(asked, ""))["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("asked", "num"),
    [
        (ask(), 1),
        (ask(n=3), 3),
        (ask("completion", prompt=["a", "b"], n=2), 4),
        (ask("completion", prompt=[1, 2, 3]), 1),
        (ask("completion", prompt=[[1, 2], [3]]), 2),
        (ask(n="many"), 1),
    ],
)
def test_how_many_texts_are_asked_for(asked: Any, num: int) -> None:
    assert wire.num_choices(asked) == num


@given(st.data())
def test_events_split_anywhere_are_the_same_events(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=8), max_size=6))
    ends = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    whole = b"".join([event(text).rstrip() + ends for text in texts] + [part.rstrip() + ends for part in STREAM[2:]])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    events = wire.Events()
    told = [
        chunk
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for chunk in events.feed(whole[start:end])
    ]
    assert b"".join(chunk.data for chunk in told) == whole.replace(b"\r", b"")
    assert events.ended
    assert told[-1].last
    assert [chunk.usage for chunk in told if chunk.usage] == [Usage(5, 2)]


def test_an_event_with_no_usage_yet_is_only_words() -> None:
    word = event("De")[:-3] + b',"usage":null,"error":null}\n\n'
    events = wire.Events()
    assert events.feed(word + word) == [Chunk(word + word)]
    assert events.feed(word) == [Chunk(word)]


def test_words_that_look_like_marks_are_words() -> None:
    told = event('"usage": {"prompt_tokens": 1}, "error": {}, "finish_reason": "stop"')
    events = wire.Events()
    assert events.feed(event("a") + told) == [Chunk(event("a") + told)]
    assert events.num_finished == 0


def test_an_event_of_several_lines_and_comments_in_between() -> None:
    usage = b'event: x\ndata: {"choices":[],\ndata: "usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    events = wire.Events()
    told = [chunk for piece in (event("a"), b": ping\n\n", usage, wire.DONE) for chunk in events.feed(piece)]
    assert told == [Chunk(event("a")), Chunk(b": ping\n\n"), Chunk(usage, Usage(5, 2)), Chunk(wire.DONE, last=True)]


def test_nothing_comes_after_the_end() -> None:
    events = wire.Events()
    assert events.feed(wire.DONE + event("more")) == [Chunk(wire.DONE, last=True)]
    assert events.feed(event("more")) == []


@pytest.mark.parametrize("told", [b'{"error":{"message":"no memory"}}', b'{"usage":{', b'{"error": "no memory"}'])
def test_an_event_that_is_an_error_or_no_json_breaks_the_stream(told: bytes) -> None:
    events = wire.Events()
    events.feed(event("a"))
    with pytest.raises(EngineBadReply, match=r"no memory|not JSON"):
        events.feed(b"data: " + told + b"\n\n")


WORD = st.text(st.sampled_from('ab"\\\n\r {}[]:,é') | st.characters(codec="utf-8"), max_size=6)
AROUND = st.sampled_from(
    [
        '{"choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}',
        '{"choices":[{"index":1,"delta":{"content": %s}}],"usage":null}',
        '{"usage":{"prompt_tokens":1,"completion_tokens":2},"choices":[{"text":%s}]}',
        '{"choices":[{"delta":{"content":%s},"finish_reason":"stop"}]}',
        "[DONE]%.0s",
    ]
)


@given(st.lists(st.tuples(AROUND, WORD, st.booleans()), max_size=12), st.lists(st.integers(1, 400), max_size=20))
def test_an_event_like_another_but_for_its_words_is_nothing_more(
    told: list[tuple[str, str, bool]], cuts: list[int]
) -> None:
    """However it is cut, a stream is told the same as by looking at each event with care."""
    words = [f'"{word}"' if as_it_is else json.dumps(word) for _, word, as_it_is in told]
    stream = "".join(f"data: {around % word}\n\n" for (around, _, _), word in zip(told, words, strict=True)).encode()
    quick, careful = wire.Events(), wire.Events()
    careful.num_looks = wire.MOST_LOOKS  # never learns what stands around the words
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in pairwise(places):
        heard: list[list[Chunk] | str] = []
        for events in (quick, careful):
            try:
                heard.append(events.feed(stream[start:end]))
            except EngineBadReply as error:
                heard.append(str(error))
        assert heard[0] == heard[1]
        if isinstance(heard[0], str):
            return
        assert (quick.ended, quick.num_finished, quick.rest) == (careful.ended, careful.num_finished, careful.rest)
