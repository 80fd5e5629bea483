"""A recipe in TRL's hands gives what ours gives: the same losses, a folder that we read, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip(
    "trl", reason="TRL is not installed: pip install torch==2.13.0 'stepwell[trl]', in its own environment"
)

from folders import write_model
from msgspec.structs import replace

from stepwell.cli.main import main
from stepwell.distill import train, trl_backend
from stepwell.distill.data import Example
from stepwell.distill.generate import generate
from stepwell.distill.plan import Plan, StudentSection
from stepwell.distill.student import load
from stepwell.errors import DistillError
from stepwell.store import tables

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("default")]

ROWS = [Example(f"name[The Mill {at}], food[French]", f"The Mill {at} serves French food.") for at in range(24)]
PLAN = Plan(
    steps=4,
    batch_tokens=1_000_000,
    rate=1e-2,
    warm_steps=0,
    fall_share=0.0,
    decay=0.0,
    average=0.0,
    alpha=1.0,
    max_tokens=8,
    save_every=2,
    precision="fp32",
)


@pytest.fixture(autouse=True)
def _offline_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return write_model(tmp_path / "student")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_model(tmp_path / "teacher", seed=1, hidden_size=48, head_dim=12)


def losses(log: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


@pytest.mark.parametrize("loss", ["ce", "fkl", "rkl", "jsd:0.3"])
def test_its_losses_are_ours(tmp_path: Path, student: Path, teacher: Path, loss: str) -> None:
    plan = replace(PLAN, loss=loss)
    theirs = trl_backend.train(plan, student, ROWS, tmp_path / "theirs", teacher=None if loss == "ce" else teacher)
    ours = train.train(plan, load(student), ROWS, tmp_path / "ours", teacher=None if loss == "ce" else load(teacher))
    assert losses(theirs.log) == pytest.approx(losses(ours.log), rel=1e-3)
    assert theirs.steps == 4
    assert theirs.tokens > 0


@pytest.mark.parametrize(("share", "name"), [(1.0, "DistillationTrainer"), (0.5, "GKDTrainer")])
def test_it_learns_from_the_students_own_texts(
    tmp_path: Path, student: Path, teacher: Path, share: float, name: str
) -> None:
    told: list[train.Told] = []
    plan = replace(PLAN, loss="rkl", on_policy=share, steps=20)
    done = trl_backend.train(plan, student, ROWS, tmp_path / "run", teacher=teacher, watch=told.append)
    assert [each.step for each in told] == list(range(1, 21))
    assert told[-1].loss < told[0].loss
    said = json.loads((done.folder / "provenance.json").read_text())
    assert (said["backend"], said["plan"]["on_policy"], said["step"]) == (name, share, 20)


def test_adapters_are_merged_and_lie_beside(tmp_path: Path, student: Path) -> None:
    done = trl_backend.train(PLAN, student, ROWS, tmp_path / "run", adapters=StudentSection(lora=4, lora_scale=2.0))
    before, after = load(student).module.state_dict(), load(done.folder).module.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["layers.0.mlp.up_proj.weight"], after["layers.0.mlp.up_proj.weight"])
    assert torch.equal(before["embed_tokens.weight"], after["embed_tokens.weight"])
    said = json.loads((done.folder / "adapter" / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"]) == (4, 8)
    assert (done.folder / "tokenizer.json").read_bytes() == (student / "tokenizer.json").read_bytes()


def test_stopped_it_goes_on_where_it_was(tmp_path: Path, student: Path) -> None:
    def kill(told: train.Told) -> None:
        if told.step == 3:
            raise KeyboardInterrupt

    plan = replace(PLAN, batch_tokens=300)
    whole = trl_backend.train(plan, student, ROWS, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trl_backend.train(plan, student, ROWS, tmp_path / "torn", watch=kill)
    again = trl_backend.train(plan, student, ROWS, tmp_path / "torn")
    assert losses(again.log) == losses(whole.log)
    assert (again.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    with pytest.raises(DistillError, match="another plan"):
        trl_backend.train(replace(plan, rate=2e-2), student, ROWS, tmp_path / "torn")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"loss": "skew:0.1"}, "no loss 'skew:0.1': take ce, fkl, rkl or jsd:BETA"),
    ({"loss": "topk+rest"}, "no loss 'topk"),
    ({"loss": "rkl", "alpha": 0.9}, "set alpha = 1"),
    ({"loss": "rkl", "temperature": 2.0}, "set temperature = 1"),
    ({"loss": "rkl", "smoothing": 0.1}, "set smoothing = 0"),
    ({"on_policy": 0.5}, "set loss = 'rkl'"),
    ({"average": 0.9}, "set average = 0"),
    ({"dropout": 0.1, "optimizer": "muon", "patience": 2}, "dropout = 0; .* 'adamw'; .* patience = 0"),
]


@pytest.mark.parametrize(("changes", "told"), REFUSED)
def test_what_it_has_no_place_for_is_told(
    tmp_path: Path, student: Path, teacher: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(DistillError, match=f"{told}.*train without --backend trl"):
        trl_backend.train(replace(PLAN, **changes), student, ROWS, tmp_path / "run", teacher=teacher)
    assert not (tmp_path / "run").exists()


def test_rows_that_it_would_read_otherwise_are_told(tmp_path: Path, student: Path, teacher: Path) -> None:
    plan = replace(PLAN, loss="rkl", on_policy=1.0)
    odd = [*ROWS, Example("name[</s>]", "The Mill.")]
    with pytest.raises(DistillError, match=r"special token.*name\[</s>\]"):
        trl_backend.train(plan, student, odd, tmp_path / "run", teacher=teacher)
    with pytest.raises(DistillError, match="weigh the same"):
        trl_backend.train(PLAN, student, [*ROWS, Example("name[x]", "x", 2.0)], tmp_path / "run")


def test_the_command_hands_it_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "student")
    tables.write(tmp_path / "rows.jsonl", [{"prompt": row.prompt, "completion": row.completion} for row in ROWS])
    recipe = tmp_path / "large.toml"
    recipe.write_text(
        "[student]\nfolder = 'student'\nlora = 4\n[train]\ndata = 'rows.jsonl'\nsteps = 3\nbatch_tokens = 300\n"
        "average = 0.0\nwarm_steps = 1\n"
    )
    assert main(["distill", "train", str(recipe), "--backend", "trl", "--json", "--threads", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 3
    assert generate(load(Path(told["folder"])), [ROWS[0].prompt], max_tokens=4)
    recipe.write_text(recipe.read_text().replace("average = 0.0\n", ""))
    assert main(["distill", "train", str(recipe), "--backend", "trl"]) == 2
    assert "set average = 0" in capsys.readouterr().err
