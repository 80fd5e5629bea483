"""JSON that was asked for: mapped, held back, checked; with llama.cpp and the house writer, which never saw JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_embedded import said, text
from writer_asks import PLACE, all_of, ask

from conftest import WRITER
from stepwell.config import ScriptedEngine
from stepwell.config_embedded import EmbeddedEngine
from stepwell.engines import structured
from stepwell.engines.embedded import Embedded
from stepwell.engines.fallback import start
from stepwell.engines.scripted import Scripted
from stepwell.errors import EngineBadReply, EngineRefusal


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": schema}}


@pytest.fixture
async def writer() -> AsyncIterator[Embedded]:
    engine = Embedded("writer", EmbeddedEngine(path=str(WRITER), threads=1, slots=2))
    yield engine
    await engine.close()


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("temperature", [0, 1.5])
async def test_a_reply_is_what_the_schema_says(writer: Embedded, kind: Any, temperature: float) -> None:
    request = ask(kind, response_format=form(PLACE), temperature=temperature, seed=3, max_tokens=200)
    (chunk,) = await all_of(writer, request)
    choice = json.loads(chunk.data)["choices"][0]
    told = json.loads(choice["message"]["content"] if kind == "chat" else choice["text"])
    assert sorted(told) == ["name", "stars"]
    assert 1 <= told["stars"] <= 5


async def test_any_object_and_plain_text(writer: Embedded) -> None:
    told = text(await said(writer, response_format={"type": "json_object"}, logit_bias={"}": 30}))
    assert isinstance(json.loads(told), dict)
    assert "Amber Fox" in text(await said(writer, response_format={"type": "text"}))


async def test_white_space_ends(writer: Embedded) -> None:
    wide = {**PLACE, "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    bias = {" ": 50, "\n": 50, "  ": 50, "\t": 50}
    told = text(await said(writer, response_format=form(wide), logit_bias=bias, max_tokens=200))
    assert " " * 3 not in told
    assert isinstance(json.loads(told)["a"], bool)


async def test_a_stream_is_held_until_it_has_been_checked(writer: Embedded) -> None:
    chunks = await all_of(writer, ask(response_format=form(PLACE), stream=True, max_tokens=200))
    frames = [json.loads(chunk.data[6:]) for chunk in chunks[:-1]]
    words = [frame["choices"][0]["delta"].get("content") or "" for frame in frames if frame["choices"]]
    assert sorted(json.loads("".join(words))) == ["name", "stars"]
    assert len(words) > 5
    assert chunks[-1].last
    assert chunks[-2].usage


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_cut_off_is_no_answer_and_the_next_engine_is_asked(writer: Embedded, *, stream: bool) -> None:
    request = ask(response_format=form(PLACE), max_tokens=4, stream=stream)
    with pytest.raises(EngineBadReply, match=r"writer: .*cut off at the token limit: no JSON"):
        await all_of(writer, request)
    opened = await start([writer, Scripted("large", ScriptedEngine(reply='{"name": "Fox", "stars": 4}'))], request)
    assert opened.engine == "large"
    await opened.rest.aclose()


async def test_what_the_grammar_leaves_out_is_found_at_the_end(writer: Embedded) -> None:
    odd = {**PLACE, "if": {"required": ["name"]}, "then": {"properties": {"stars": {"const": 77}}}}
    with pytest.raises(EngineBadReply, match=r"no JSON|what the schema says"):
        await said(writer, response_format=form(odd), max_tokens=100)


@pytest.mark.parametrize(
    ("response_format", "where"),
    [
        ({"type": "yaml"}, "response_format.type"),
        ("json_object", "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        (form({"type": "nonsense"}), "schema"),
        (form({"$ref": "http://127.0.0.1:9/schema.json"}), "schema"),
        (form({"$ref": "file:///etc/passwd"}), "schema"),
        (form({"description": "x" * 300_000}), "256 KB"),
    ],
)
async def test_a_wrong_form_is_a_400(writer: Embedded, response_format: Any, where: str) -> None:
    with pytest.raises(EngineRefusal) as caught:
        await said(writer, response_format=response_format)
    assert caught.value.status == 400
    error = json.loads(caught.value.body)["error"]
    assert where in error["message"]
    assert error["param"].startswith("response_format")


def test_hostile_schemas_cost_nothing() -> None:
    check = structured.checker({"type": "string", "pattern": "^(a+)+$"}, "p", "e")
    assert structured.complaint(json.dumps("a" * 5000 + "b"), check)
    deep: dict[str, Any] = {}
    for _ in range(70):
        deep = {"not": deep}
    with pytest.raises(EngineRefusal, match="levels deep"):
        structured.checker(deep, "p", "e")
    assert "no JSON" in structured.complaint("[" * 100_000, structured.checker({}, "p", "e"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_value_is_checked_as_itself(value: Any) -> None:
    check = structured.checker({"const": value}, "p", "e")
    assert structured.complaint(json.dumps(value), check) == ""
    assert structured.complaint(json.dumps([value, 1]), check)


TOOL = {"type": "function", "function": {"name": "book", "parameters": PLACE}}


async def test_a_model_without_tools_lets_the_next_engine_have_them(writer: Embedded) -> None:
    with pytest.raises(EngineRefusal, match="no place for tools") as caught:
        await said(writer, tools=[TOOL])
    assert caught.value.status == 501
    assert "Amber Fox" in text(await said(writer, tools=[TOOL], tool_choice="none"))


async def test_a_model_that_has_to_call_a_tool_and_does_not_has_not_answered(tmp_path: Path) -> None:
    engine = Embedded("tools", EmbeddedEngine(path=str(with_tools(tmp_path / "tools.gguf")), threads=1, slots=1))
    assert text(await said(engine, tools=[TOOL], max_tokens=40)), "may answer in words"
    with pytest.raises(EngineBadReply, match=r"calls no tool|not what was asked for"):
        await said(engine, tools=[TOOL], tool_choice="required", max_tokens=40)
    await engine.close()


def test_a_call_is_what_its_tool_takes() -> None:
    shape = structured.shape_of({"tools": [TOOL]}, "e")
    assert shape is not None

    def complaint(name: str, arguments: str) -> str:
        call = {"function": {"name": name, "arguments": arguments}}
        return shape.complaint({"message": {"content": None, "tool_calls": [call]}})

    assert complaint("book", '{"name": "Fox", "stars": 4}') == ""
    assert "6 is greater" in complaint("book", '{"name": "Fox", "stars": 6}')
    assert "no JSON" in complaint("book", '{"name": "Fox"')
    assert "'look'" in complaint("look", "{}")
    assert shape.complaint({"message": {"content": "No table is free."}}) == ""
    must = structured.shape_of({"tools": [TOOL], "tool_choice": "required"}, "e")
    assert must is not None
    assert must.complaint({"message": {"content": "No table is free."}}) == "it calls no tool"


def with_tools(out: Path) -> Path:
    """The writer with a chat template that speaks of tools."""
    template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>"
        'Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call>{% endif %}<sep>'
    )
    read = gguf.GGUFReader(WRITER)
    writer = gguf.GGUFWriter(out, "llama")
    for field in read.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "tokenizer.chat_template"):
            continue
        writer.add_key_value(field.name, field.contents(), field.types[0], field.types[-1])
    writer.add_chat_template(template)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
