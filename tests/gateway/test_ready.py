"""Ready is who knows again what it knew before; also where the store that processes share is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SCRIPTED, Start, Upstream, forwarding
from servers import free_port
from stepwell.config import load
from stepwell.well import build

pytest.importorskip("onnxruntime")
pytest.importorskip("redis")

ELSEWHERE = f"""{SCRIPTED}
[semantic]
embedder = "http"
url = "http://127.0.0.1:9/v1"

[promise]
error = 0.1
judge = "exact"
"""
LOADS_NUMPY = """
import os, sys
from stepwell.config import load
from stepwell.well import build

seen = []
sys.addaudithook(lambda event, of: seen.append(os.environ["OPENBLAS_NUM_THREADS"]) if of[:1] == ("numpy",) else None)
build(load("stepwell.toml"))
print(seen[0])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stepwell.toml").write_text(ELSEWHERE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_gateway_whose_store_is_gone_is_ready(
    serve: Start, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    converted = tmp_path_factory.getbasetemp() / "minilm"
    text = forwarding(upstream) + f'[cache]\nurl = "redis://127.0.0.1:{free_port()}"\n'
    gateway = serve(f'{text}[semantic]\nconverted = "{converted}"\n[promise]\nerror = 0.1\njudge = "exact"\n')
    gateway.wait_until_ready()


async def test_wordings_are_read_before_and_labels_too(folder: Path) -> None:
    well = build(load(folder / "stepwell.toml"))
    assert well.meaning is not None
    assert well.door.ready() == "the index is being read"
    well.meaning.semantic.tried = True
    assert well.door.ready() == "labels are being learned from"
    well.meaning.audits.tried = True
    assert well.door.ready() == ""
    await well.close()


@pytest.mark.parametrize(("said", "used"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")], ids=["unsaid", "said"])
def test_linear_algebra_has_one_thread_where_nobody_says_otherwise(
    folder: Path, said: dict[str, str], used: str
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"} | said
    done = subprocess.run(
        [sys.executable, "-c", LOADS_NUMPY], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == used
