"""Which engine is taken: by kept figures, by how many ask, and what one cannot do the other is asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asks import ask
from hypothesis import given
from hypothesis import strategies as st

from conftest import WRITER
from stepwell.config import ScriptedEngine
from stepwell.config_embedded import EmbeddedEngine
from stepwell.engines import auto, figures
from stepwell.engines.auto import Auto
from stepwell.engines.embedded import Embedded
from stepwell.engines.figures import Figures, Pick, Speed, keep, kept, of_this, pick, place, sha256_of
from stepwell.engines.scripted import Scripted
from stepwell.errors import ConfigError

SHA256 = sha256_of(str(WRITER))


def measured(engine: Any, config: EmbeddedEngine, **speeds: float) -> Figures:
    decode = {int(size[1:]): Speed(speed, speed) for size, speed in speeds.items()}
    return Figures(place(config, engine, SHA256), 0.1, 1000.0, decode, 100.0)


@pytest.fixture
def config(tmp_path: Path) -> EmbeddedEngine:
    return EmbeddedEngine(
        path=str(WRITER), engine="auto", threads=1, slots=2, figures=str(tmp_path / "state" / "f.json")
    )


def test_the_better_engine_is_picked_for_few_and_for_many(config: EmbeddedEngine) -> None:
    llama = measured("llamacpp", config, _1=400, _4=450, _8=460, _32=470)
    quick = measured("openvino", config, _1=250, _4=440, _8=900, _32=1400)
    assert pick([llama, quick]) == Pick("llamacpp", "openvino", 8)
    assert pick([quick, llama]) == Pick("llamacpp", "openvino", 8)
    assert pick([llama]) == Pick("llamacpp", "llamacpp")
    assert pick([quick]) == Pick("openvino", "openvino")
    assert pick([]) is None
    assert pick([llama, measured("openvino", config, _1=450, _4=500, _8=500, _32=500)]) == Pick("llamacpp", "llamacpp")
    assert pick([llama, measured("openvino", config, _1=500, _4=900, _8=900, _32=900)]) == Pick("openvino", "openvino")


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=1, max_size=5))
def test_from_where_on_many_is_picked_it_is_never_slower(speeds: list[tuple[float, float]]) -> None:
    config = EmbeddedEngine(path=str(WRITER))
    each = [{f"_{2**at}": pair[side] for at, pair in enumerate(speeds)} for side in (0, 1)]
    found = pick([measured("llamacpp", config, **each[0]), measured("openvino", config, **each[1])])
    assert found is not None
    if found.many_from:
        assert found.few != found.many
        side = ("llamacpp", "openvino").index(found.many)
        for at, pair in enumerate(speeds):
            if 2**at >= found.many_from:
                assert pair[side] * figures.CLEARLY >= pair[1 - side]


def test_figures_hold_for_this_file_version_machine_and_setting_alone(
    config: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(config.figures, [measured("llamacpp", config, _1=400)])
    keep(config.figures, [measured("llamacpp", config, _1=300)])
    (found,) = of_this(config)
    assert found.decode[1].tokens_per_cpu_s == 300
    for change in (
        {"threads": 2},
        {"cache_type_k": "q8_0"},
        {"path": str(WRITER.parents[1] / "house-student/config.json")},
    ):
        assert of_this(msgspec.structs.replace(config, **change)) == []
    monkeypatch.setattr(figures, "processor", lambda: "another one")
    assert of_this(config) == []
    monkeypatch.undo()
    monkeypatch.setattr(figures, "version", lambda _engine: "9")
    assert of_this(config) == []


def test_damaged_figures_are_said(config: EmbeddedEngine) -> None:
    Path(config.figures).parent.mkdir()
    for damage in (b"[{", b"\xff", b'[{"place": 5}]'):
        Path(config.figures).write_bytes(damage)
        with pytest.raises(ConfigError, match="holds no figures"):
            kept(config.figures)


async def test_without_figures_llama_cpp_runs_it_and_says_so(
    config: EmbeddedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = auto.embedded("writer", config)
    assert isinstance(engine, Embedded)
    assert "stepwell engines test" in caplog.text
    await engine.close()
    keep(config.figures, [measured("llamacpp", config, _1=400)])
    engine = auto.embedded("writer", config)
    assert isinstance(engine, Embedded)
    await engine.close()


async def test_many_are_asked_of_the_other_and_what_it_cannot_do_is_not() -> None:
    few = Scripted("few", ScriptedEngine(reply="few", delay_s=0.05))
    many = Scripted("many", ScriptedEngine(reply="many", delay_s=0.05))
    both = Auto("both", few, many, 3)
    replies = await asyncio.gather(*(said(both) for _ in range(5)))
    assert set(replies) == {"many"}, "they came in the same moment"
    early = asyncio.ensure_future(said(both))
    await asyncio.sleep(0.01)
    assert [await said(both), await early] == ["few", "few"]
    assert both.num_running == 0
    assert await said(both) == "few"
    unable = Auto("both", few, Scripted("many", ScriptedEngine(fail="refuse")), 1)
    assert await said(unable) == "few"
    chunks = unable.generate(ask(stream=True))
    await anext(chunks)
    await chunks.aclose()
    assert unable.num_running == 0
    await both.close()


async def said(engine: Any) -> str:
    (chunk,) = [chunk async for chunk in engine.generate(ask())]
    return str(json.loads(chunk.data)["choices"][0]["message"]["content"])
