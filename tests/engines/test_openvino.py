"""OpenVINO GenAI in its process, with the house writer in it; what needs no OpenVINO is tested without."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from writer_asks import FACTS, PLACE, all_of, ask, left_early

from conftest import ROOT, WRITER
from stepwell.config_embedded import EmbeddedEngine
from stepwell.engines import openvino
from stepwell.engines.embedded import Embedded
from stepwell.engines.openvino import OpenVino
from stepwell.errors import ConfigError, EngineBadReply, EngineError, EngineRefusal, EngineUnavailable
from stepwell.types import Chunk, Kind

needs_openvino = pytest.mark.skipif(
    find_spec("openvino_genai") is None, reason="OpenVINO GenAI is not installed: pip install 'stepwell[openvino]'"
)


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}


def config(file: Path, **more: Any) -> EmbeddedEngine:
    return EmbeddedEngine(path=str(file), engine="openvino", **{"threads": 1, "slots": 4, **more})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The house writer in a format that OpenVINO reads, whatever it ships in."""
    from stepwell.quantize.export import to_gguf  # noqa: PLC0415 - what is skipped needs no gguf

    return to_gguf(WRITER.parent, tmp_path_factory.mktemp("openvino") / "writer.gguf", "Q8_0")


@pytest.fixture(scope="module")
def loaded(file: Path) -> Any:
    """Loading takes seconds: one process for all tests that leave it as it was."""
    engine = OpenVino("writer", config(file))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture
def writer(loaded: Any) -> Any:
    assert not loaded.child.dead
    return loaded


async def told(engine: Any, kind: Kind = "chat", **fields: Any) -> dict[str, Any]:
    (chunk,) = await all_of(engine, ask(kind, **fields))
    assert chunk.last
    whole: dict[str, Any] = json.loads(chunk.data)
    return whole


async def said(engine: Any, **fields: Any) -> str:
    return str((await told(engine, **fields))["choices"][0]["message"]["content"])


def words(chunks: list[Chunk]) -> str:
    frames = [json.loads(event[6:]) for chunk in chunks[:-1] for event in chunk.data.split(b"\n\n") if event]
    return "".join(frame["choices"][0]["delta"].get("content") or "" for frame in frames if frame["choices"])


@needs_openvino
async def test_json_stream_and_llama_cpp_say_the_same(writer: Any, file: Path) -> None:
    whole = await told(writer)
    text = whole["choices"][0]["message"]["content"]
    assert "Amber Fox" in text
    assert (whole["object"], whole["model"], whole["choices"][0]["finish_reason"]) == (
        "chat.completion",
        "writer",
        "stop",
    )
    chunks = await all_of(writer, ask(stream=True))
    assert words(chunks) == text
    assert len(chunks) > 10, "token by token"
    assert chunks[-2].usage is not None
    assert (chunks[-1].data, chunks[-1].last) == (b"data: [DONE]\n\n", True)
    other = Embedded("other", EmbeddedEngine(path=str(file), threads=1, slots=1))
    (chunk,) = await all_of(other, ask())
    theirs = json.loads(chunk.data)
    assert theirs["choices"][0]["message"]["content"] == text
    assert theirs["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    await other.close()


@needs_openvino
async def test_greedy_and_seeded_answers_repeat_and_others_differ(writer: Any) -> None:
    hot = {"temperature": 1.5, "seed": 7}
    assert await said(writer, **hot) == await said(writer, **hot)
    assert len({await said(writer, temperature=1.5) for _ in range(6)}) > 1
    assert await said(writer, temperature=2, top_k=1) == await said(writer)
    assert await said(writer, temperature=2, top_p=0.0001) == await said(writer)


@needs_openvino
@pytest.mark.parametrize("stream", [False, True])
async def test_limits_and_stops(writer: Any, *, stream: bool) -> None:
    text = await said(writer)
    for stop in ("pub", "ub that", ["xyz", "Fox is"], "Th"):
        first = min(text.find(each) for each in ([stop] if isinstance(stop, str) else stop) if each in text)
        chunks = await all_of(writer, ask(stop=stop, stream=stream))
        got = words(chunks) if stream else json.loads(chunks[0].data)["choices"][0]["message"]["content"]
        assert got == text[:first]
    assert (await told(writer, max_tokens=3))["choices"][0]["finish_reason"] == "length"
    assert (await told(writer, max_completion_tokens=2))["usage"]["completion_tokens"] == 2


@needs_openvino
async def test_several_choices_logprobs_and_completions(writer: Any) -> None:
    whole = await told(writer, n=3, temperature=1.2, seed=1)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in whole["choices"]}) > 1
    content = (await told(writer, logprobs=True, max_tokens=4))["choices"][0]["logprobs"]["content"]
    assert len(content) == 4
    assert all(-5 < each["logprob"] <= 0 for each in content)
    one = f"{FACTS}<sep>"
    whole = await told(writer, "completion", prompt=[one, one.replace("French", "Indian")], max_tokens=40)
    assert ["French" in whole["choices"][0]["text"], "Indian" in whole["choices"][1]["text"]] == [True, True]


@needs_openvino
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, {"messages": [{"role": "user", "content": "word " * 2000}]}),
        (501, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
        (400, {"max_tokens": -5}),
        (400, {"top_k": "many"}),
        (400, {"min_p": "hot"}),
        (400, {"top_p": 3.0, "temperature": 1}),
        (400, {"stop": 5}),
        (400, {"n": 0}),
        (501, {"tools": [{"type": "function", "function": {"name": "book"}}]}),
        (501, {"logit_bias": {"5": 1}}),
        (501, {"logprobs": True, "top_logprobs": 3}),
    ],
)
async def test_what_is_wrong_is_a_400_and_what_another_engine_may_do_a_501(
    writer: Any, status: int, fields: dict[str, Any], *, stream: bool
) -> None:
    with pytest.raises(EngineRefusal) as caught:
        await all_of(writer, ask(**fields, stream=stream))
    assert caught.value.status == status
    assert json.loads(caught.value.body)["error"]["message"]


@needs_openvino
async def test_json_is_what_the_schema_says_or_no_answer(writer: Any) -> None:
    place = json.loads(await said(writer, response_format=form(PLACE), max_tokens=200))
    assert sorted(place) == ["name", "stars"]
    chunks = await all_of(writer, ask(response_format=form(PLACE), max_tokens=200, stream=True))
    assert json.loads(words(chunks)) == place
    with pytest.raises(EngineBadReply, match="cut off"):
        await said(writer, response_format=form(PLACE), max_tokens=4)


@needs_openvino
async def test_schemas_that_its_grammar_would_fail_at_harm_nobody(writer: Any) -> None:
    odd: list[Any] = [
        {"type": "string", "pattern": r"^\p{L}+$", "maxLength": 10**9},
        {"type": "integer", "minimum": 9, "maximum": 3},
        {"enum": []},
        {"type": "object", "properties": {'\n"': {"type": "null"}}, "required": ['\n"']},
    ]
    replies = await asyncio.gather(
        *(all_of(writer, ask(response_format=form(each), max_tokens=8)) for each in odd),
        said(writer),
        return_exceptions=True,
    )
    assert "Amber Fox" in str(replies[-1])
    assert all(isinstance(each, EngineBadReply | EngineRefusal | list) for each in replies[:-1])
    assert not writer.child.dead


@needs_openvino
async def test_many_at_once(writer: Any) -> None:
    foods = ["French", "Indian"] * 12
    asked = [[{"role": "user", "content": FACTS.replace("French", food)}] for food in foods]
    texts = await asyncio.gather(*(said(writer, messages=messages) for messages in asked))
    assert all(food in text for food, text in zip(foods, texts, strict=True))


@needs_openvino
@pytest.mark.parametrize("stream", [False, True])
async def test_closing_early_frees_the_slot(file: Path, *, stream: bool) -> None:
    engine = OpenVino("writer", config(file, slots=1, context_tokens=20_000))
    endless = ask(stream=stream, max_tokens=19_000, ignore_eos=True, temperature=1)
    await left_early(engine, endless, after_s=0.1)
    await asyncio.wait_for(said(engine), 20)
    assert engine.num_waiting == 0
    await engine.close()


@needs_openvino
async def test_a_process_that_died_is_said_and_started_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "AGAIN_S", 0.0)
    engine = OpenVino("writer", config(file))
    asking = asyncio.ensure_future(all_of(engine, ask(max_tokens=400, ignore_eos=True)))
    await asyncio.sleep(0.05)
    engine.child.process.send_signal(signal.SIGKILL)
    with pytest.raises(EngineUnavailable, match="has died"):
        await asking
    for _ in range(600):
        try:
            assert "Amber Fox" in await said(engine)
            break
        except EngineError:
            await asyncio.sleep(0.05)
    else:
        pytest.fail("it was not started again")
    await engine.close()


@needs_openvino
def test_it_lives_no_longer_than_its_gateway(file: Path) -> None:
    code = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.path.insert(0, {str(ROOT / "tests")!r})
from test_openvino import OpenVino, ask, config
async def main():
    engine = OpenVino("writer", config({str(file)!r}, context_tokens=20000))
    chunks = engine.generate(ask(max_tokens=19000, ignore_eos=True, stream=True))
    await anext(chunks)
    print(engine.child.process.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    dead = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    pid = int(dead.stdout)
    for _ in range(400):
        if not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text():
            break
        os.sched_yield()
        asyncio.run(asyncio.sleep(0.05))
    else:
        pytest.fail("it lives on")


@needs_openvino
def test_a_process_that_used_it_ends_cleanly_and_quietly(file: Path) -> None:
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.path.insert(0, {str(ROOT / "tests")!r})
from test_openvino import OpenVino, said, config
async def main():
    engine = OpenVino("writer", config({str(file)!r}))
    print(await said(engine))
    await engine.close()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Amber Fox" in done.stdout


@needs_openvino
def test_what_it_cannot_read_is_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        OpenVino("writer", EmbeddedEngine(path=str(tmp_path / "none.gguf"), engine="openvino"))
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:50_000])
    with pytest.raises(ConfigError, match=r"cut\.gguf"):
        OpenVino("writer", config(tmp_path / "cut.gguf"))
    from stepwell.quantize.export import to_gguf  # noqa: PLC0415 - as above

    to_gguf(WRITER.parent, tmp_path / "five.gguf", "Q5_1")
    with pytest.raises(
        ConfigError, match=r"llama model in Q5_1 .*: say engine = 'llamacpp', or export it in F16, Q8_0"
    ):
        OpenVino("writer", config(tmp_path / "five.gguf"))


def test_without_it_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'stepwell\[openvino\]'"):
        OpenVino("writer", config(WRITER))
