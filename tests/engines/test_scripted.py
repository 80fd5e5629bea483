"""The test double that ships."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asks import all_of, ask

from stepwell.config import ScriptedEngine
from stepwell.engines.scripted import Scripted
from stepwell.errors import EngineError
from stepwell.types import Kind


@pytest.mark.parametrize("fail", ["refuse", "limit", "error", "die"])
async def test_scripted_failures(fail: Any) -> None:
    for stream in (False, True):
        up = Scripted("s", ScriptedEngine(fail=fail, fail_first=1))
        with pytest.raises(EngineError):
            await all_of(up, ask(stream=stream))
        assert (await all_of(up, ask(stream=stream)))[-1].last


async def test_hanging_ends_when_nobody_waits_any_more() -> None:
    asking = asyncio.ensure_future(all_of(Scripted("s", ScriptedEngine(fail="hang")), ask()))
    await asyncio.sleep(0.02)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_a_stream_says_what_the_json_says(kind: Kind) -> None:
    up = Scripted("s", ScriptedEngine(reply="Deep  water,\nstill."))
    (whole,) = await all_of(up, ask(kind))
    choice = json.loads(whole.data)["choices"][0]
    *told, last = await all_of(up, ask(kind, stream=True))
    choices = [choice for chunk in told for choice in json.loads(chunk.data[6:])["choices"]]
    if kind == "chat":
        words = [choice["delta"].get("content", "") for choice in choices]
    else:
        words = [choice["text"] for choice in choices]
    assert "".join(words) == "Deep  water,\nstill." == (choice.get("text") or choice["message"]["content"])
    assert told[-1].usage == whole.usage
    assert last.last


@pytest.mark.parametrize(
    ("asked", "num"), [("water", 1), (["water", "stone"], 2), ([1, 2, 3], 1), ([[1, 2], [3], [1, 2]], 3)]
)
async def test_each_text_has_its_own_vector_and_the_same_text_the_same(asked: Any, num: int) -> None:
    up = Scripted("s", ScriptedEngine())
    (chunk,) = await all_of(up, ask("embedding", input=asked))
    told = json.loads(chunk.data)
    vectors = [each["embedding"] for each in told["data"]]
    assert [each["index"] for each in told["data"]] == list(range(num))
    assert len({tuple(vector) for vector in vectors}) == min(num, 2)
    assert all(len(vector) == 8 for vector in vectors)
    assert set(told["usage"]) == {"prompt_tokens", "total_tokens"}
    assert chunk.usage is not None
    assert chunk.usage.output_tokens == 0
    assert (await all_of(up, ask("embedding", input=asked)))[0].data == chunk.data
