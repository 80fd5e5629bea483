"""The loop in two workers of Ray gives the curve that one process gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install torch==2.13.0 'stepwell[ray]'")

from folders import write_model

from stepwell.cli.main import main
from stepwell.store import tables

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

RECIPE = """
[student]
folder = 'student'
[train]
data = 'rows.jsonl'
steps = 4
batch_tokens = 300
warm_steps = 1
save_every = 2
precision = 'fp32'
"""


def test_two_workers_learn_what_one_process_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_model(tmp_path / "student")
    rows = [{"prompt": f"name[The Mill {at}]", "completion": f"The Mill {at} is here."} for at in range(24)]
    tables.write(tmp_path / "rows.jsonl", rows)
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    curves = []
    for how in ([], ["--ray", "2"]):
        out = tmp_path / f"run{len(curves)}"
        assert main(["distill", "train", str(recipe), "--out", str(out), "--json", *how]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (told["steps"], told["stopped"]) == (4, "steps")
        assert (Path(told["folder"]) / "model.safetensors").exists()
        curves.append([json.loads(line)["loss"] for line in Path(told["log"]).read_text().splitlines()])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_more_workers_than_there_is_room_for_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    assert main(["distill", "train", str(tmp_path / "small.toml"), "--ray", "4096"]) == 2
    assert "--ray 4096: the cluster has" in capsys.readouterr().err
