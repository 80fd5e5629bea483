"""The embedded engine, with the house writer in it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from writer_asks import FACTS, all_of, ask, left_early

from conftest import WRITER
from stepwell import config as configuration
from stepwell.config import EmbeddedEngine
from stepwell.engines.embedded import Embedded
from stepwell.errors import ConfigError, EngineRefusal, EngineUnavailable
from stepwell.types import Kind


@pytest.fixture
async def writer() -> AsyncIterator[Embedded]:
    engine = Embedded("writer", EmbeddedEngine(path=str(WRITER), threads=1, slots=4))
    yield engine
    await engine.close()


async def said(engine: Embedded, **fields: Any) -> dict[str, Any]:
    (chunk,) = await all_of(engine, ask(**fields))
    assert chunk.last
    told: dict[str, Any] = json.loads(chunk.data)
    return told


def text(told: dict[str, Any], index: int = 0) -> str:
    return str(told["choices"][index]["message"]["content"])


async def test_json_and_stream_say_the_same(writer: Embedded) -> None:
    told = await said(writer)
    assert "Amber Fox" in text(told)
    assert (told["object"], told["model"], told["choices"][0]["finish_reason"]) == ("chat.completion", "writer", "stop")
    assert told["usage"]["prompt_tokens"] > 10
    chunks = await all_of(writer, ask(stream=True))
    frames = [json.loads(chunk.data[6:]) for chunk in chunks[:-1]]
    words = "".join(frame["choices"][0]["delta"].get("content") or "" for frame in frames if frame["choices"])
    assert words == text(told)
    assert len(frames) > 10, "token by token"
    assert chunks[-2].usage is not None
    assert (chunks[-1].data, chunks[-1].last) == (b"data: [DONE]\n\n", True)


async def test_greedy_and_seeded_answers_repeat_and_others_differ(writer: Embedded) -> None:
    assert text(await said(writer)) == text(await said(writer))
    hot = {"temperature": 1.5, "seed": 7}
    assert text(await said(writer, **hot)) == text(await said(writer, **hot))
    assert len({text(await said(writer, temperature=1.5, seed=seed)) for seed in range(6)}) > 1


async def test_limits_and_stops(writer: Embedded) -> None:
    told = await said(writer, max_tokens=3)
    assert (told["usage"]["completion_tokens"], told["choices"][0]["finish_reason"]) == (3, "length")
    assert (await said(writer, max_completion_tokens=2))["usage"]["completion_tokens"] == 2
    assert "pub" not in text(await said(writer, stop=["pub"]))
    assert text(await said(writer, temperature=2, top_k=1)) == text(await said(writer))
    assert text(await said(writer, temperature=2, top_p=0.0001)) == text(await said(writer))


async def test_several_choices_logprobs_and_completions(writer: Embedded) -> None:
    told = await said(writer, n=2, temperature=1.0)
    assert len(told["choices"]) == 2
    told = await said(writer, logprobs=True, max_tokens=2)
    assert len(told["choices"][0]["logprobs"]["content"]) == 2
    (chunk,) = await all_of(writer, ask("completion", prompt=f"{FACTS}<sep>", max_tokens=40))
    assert "Amber Fox" in json.loads(chunk.data)["choices"][0]["text"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("chat", {"messages": [{"role": "user", "content": "word " * 2000}]}),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
        ("chat", {"max_tokens": -5}),
        ("chat", {"top_k": "many"}),
        ("embedding", {"input": "water"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_it_cannot_do_is_a_400_in_openais_shape(
    writer: Embedded, kind: Kind, fields: dict[str, Any], *, stream: bool
) -> None:
    if kind == "embedding" and stream:
        return
    with pytest.raises(EngineRefusal) as caught:
        await all_of(writer, ask(kind, **fields, **({"stream": True} if stream else {})))
    assert caught.value.status == 400
    assert json.loads(caught.value.body)["error"]["message"]


async def test_many_at_once(writer: Embedded) -> None:
    foods = ["French", "Indian"] * 16
    asked = [[{"role": "user", "content": FACTS.replace("French", food)}] for food in foods]
    told = await asyncio.gather(*(said(writer, messages=messages) for messages in asked))
    assert all(food in text(one) for food, one in zip(foods, told, strict=True))


async def test_the_line_is_not_endless() -> None:
    engine = Embedded("writer", EmbeddedEngine(path=str(WRITER), threads=1, slots=1, max_waiting=3))
    told = await asyncio.gather(*(said(engine) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, EngineUnavailable) for one in told) == 2
    await engine.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_early_frees_the_slot(*, stream: bool) -> None:
    engine = Embedded("writer", EmbeddedEngine(path=str(WRITER), threads=1, slots=1, context_tokens=100_000))
    endless = ask(stream=stream, max_tokens=90_000, ignore_eos=True, temperature=1)
    await left_early(engine, endless, after_s=0.03)
    began_s = time.monotonic()
    await asyncio.wait_for(said(engine), 20)
    assert engine.num_waiting == 0
    assert time.monotonic() >= began_s
    await engine.close()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Embedded("writer", EmbeddedEngine(path=str(tmp_path / "none.gguf")))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ConfigError, match="not a GGUF"):
        Embedded("writer", EmbeddedEngine(path=str(tmp_path / "text.gguf")))
    (tmp_path / "cut.gguf").write_bytes(WRITER.read_bytes()[:50_000])
    with pytest.raises(ConfigError, match=r"cut\.gguf.*cannot load"):
        Embedded("writer", EmbeddedEngine(path=str(tmp_path / "cut.gguf")))


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0", "q5_1", "q4_0"])
async def test_keys_and_values_may_be_kept_less_exactly(kind: Any) -> None:
    config = EmbeddedEngine(path=str(WRITER), threads=1, batch_threads=2, slots=2, cache_type_k=kind, cache_type_v=kind)
    engine = Embedded("writer", config)
    assert "Amber Fox" in text(await said(engine))
    await engine.close()


@pytest.mark.parametrize(
    ("more", "field", "what"),
    [
        ({"flash_attention": "off", "cache_type_v": "q8_0"}, "flash_attention", "need flash attention"),
        ({"slots": 64, "batch_tokens": 32}, "batch_tokens", "at least 64"),
        ({"engine": "openvino", "cache_type_k": "q5_1"}, "cache_type_k", "OpenVINO has no q5_1"),
    ],
)
def test_settings_that_do_not_fit_together_are_said(more: dict[str, Any], field: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        Embedded("writer", EmbeddedEngine(path=str(WRITER), **more))
    assert caught.value.field == field
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    with pytest.raises(ConfigError, match=what) as caught:
        configuration.parse(f'[engines.w]\ntype = "embedded"\npath = "w.gguf"\n{lines}')
    assert caught.value.field == f"engines.w.{field}"
    assert caught.value.line > 3


def test_heads_that_no_rounded_cache_fits_are_said(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "narrow.gguf", "llama")
    writer.add_embedding_length(96)
    writer.add_head_count(4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ConfigError, match="heads are 24 wide, and q8_0 takes 32"):
        Embedded("narrow", EmbeddedEngine(path=str(tmp_path / "narrow.gguf"), cache_type_k="q8_0"))


async def test_llama_cpps_own_port_is_locked(writer: Embedded) -> None:
    url = f"{writer.server.listening_address}/v1/chat/completions"
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(urllib.request.urlopen, urllib.request.Request(url, body))
    assert caught.value.code == 401
    caught.value.close()


def test_what_is_closed_as_soon_as_it_is_loaded_does_not_wait_for_itself() -> None:
    code = f"""
from stepwell.config import EmbeddedEngine
from stepwell.engines.embedded import loaded
for _ in range(5):
    loaded(EmbeddedEngine(path={str(WRITER)!r}, threads=1))
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)


async def test_what_llama_cpp_counts_is_not_told_to_strangers(writer: Embedded) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(urllib.request.urlopen, f"{writer.server.listening_address}/metrics")
    assert caught.value.code == 401
    caught.value.close()


def test_a_process_that_used_it_ends_cleanly_and_quietly() -> None:
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from test_embedded import Embedded, EmbeddedEngine, WRITER, said, text
async def main():
    engine = Embedded("writer", EmbeddedEngine(path=str(WRITER), threads=1))
    print(text(await said(engine)))
    await engine.close()
asyncio.run(main())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert re.fullmatch(r".*Amber Fox.*\n", told.stdout)
    assert told.stderr.replace("\0", "").strip() == ""
