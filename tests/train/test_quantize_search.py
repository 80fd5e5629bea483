"""A search with a real model in the real engine: what it leaves, a budget that ends, kill -9, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from conftest import ROOT
from stepwell import verified
from stepwell.campaigns import quantize_model, quantize_task
from stepwell.campaigns.quantize import searched
from stepwell.campaigns.quantize_job import Job
from stepwell.campaigns.quantize_model import some
from stepwell.campaigns.quantize_task import Task
from stepwell.campaigns.served import served
from stepwell.cli.main import main
from stepwell.demo.city import questions
from stepwell.distill import student
from stepwell.distill.generate import generate
from stepwell.errors import DistillError
from stepwell.quality.files import sha256_of
from stepwell.quantize import candidates
from stepwell.quantize.apply import applied
from stepwell.quantize.export import to_gguf
from stepwell.quantize.grids import Coded
from stepwell.quantize.recipe import Recipe, read, uniform
from stepwell.quantize.search import Found, Plan
from stepwell.store import tables

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODEL = ROOT / "models" / "house-student"
NUM = {"calibration": 24, "search": 60, "gate": 60}
MARGIN = "0.1"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task whose texts the model itself wrote: what it says is right by the slot checker, nearly always."""
    folder = tmp_path_factory.mktemp("task")
    prompts = list(dict.fromkeys(questions(60, 5)))[: sum(NUM.values())]
    said = [text for (text,) in generate(student.load(MODEL), prompts, max_tokens=60)]
    rows = iter([{"prompt": prompt, "completion": text} for prompt, text in zip(prompts, said, strict=True)])
    for name, num in NUM.items():
        tables.write(folder / f"{name}.jsonl", [next(rows) for _ in range(num)])
    return written(folder / "city.toml")


def written(file: Path, scorer: str = "slots", **splits: str) -> Path:
    named = {name: f"{name}.jsonl" for name in NUM} | splits
    lines = [f'scorer = "{scorer}"', "max_tokens = 60", *(f'{name} = "{path}"' for name, path in named.items())]
    file.write_text("\n".join(lines) + "\n")
    return file


def job(model: Path, task: Path, out: Path, **other: Any) -> Job:
    return Job(model, quantize_task.load(task), MARGIN, out, **{"budget_s": 200.0, "cpu": True, "num_mixed": 4} | other)


def times(folder: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mtime_ns for each in folder.iterdir() if not each.name.startswith(".")}


@dataclass(frozen=True)
class Story:
    """A search that ran out of time, was killed, and came to its end; and what lay there each time."""

    given: Job
    short: Found
    found: Found
    after: tuple[dict[str, int], dict[str, int], dict[str, int]]


@pytest.fixture(scope="module")
def story(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    given = job(MODEL, task, tmp_path_factory.mktemp("story") / "out")
    short = searched(replace(given, budget_s=6.0))
    first = times(given.out / "work")
    second = killed(given, task, len(first) + 3)
    return Story(given, short, searched(given), (first, second, times(given.out / "work")))


def killed(given: Job, task: Path, num: int) -> dict[str, int]:
    """Go on from the command line, and kill it as soon as so many results are there."""
    command = [sys.executable, "-m", "stepwell.cli", "quantize", "search", str(MODEL), "--task", str(task)]
    options = ["--margin", MARGIN, "-o", str(given.out), "--json"]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(times(given.out / "work")) < num and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    return times(given.out / "work")


def test_a_budget_that_ends_leaves_the_best_so_far_and_says_so(story: Story) -> None:
    assert story.short.status == "incomplete"
    assert "the same command goes on" in story.short.why
    assert story.short.spent_s <= 6.0
    assert not story.short.tested


def test_nothing_that_was_there_is_computed_again(story: Story) -> None:
    first, second, last = story.after
    assert len(first) < len(second) < len(last)
    assert {name: last[name] for name in first} == first
    assert {name: last[name] for name in second} == second
    before = times(story.given.out / "work")
    assert searched(story.given) == story.found
    assert times(story.given.out / "work") == before


def test_the_winner_is_the_last_that_the_gate_let_through(story: Story) -> None:
    found = story.found
    assert found.status == "found", found.why
    assert found.winner is not None
    assert found.winner.num_bytes < 0.6 * found.parent.num_bytes
    tested = [next(each for each in found.points if each.name == name) for name in found.tested]
    passed = [each for each in tested if all(one.passes for one in each.gated)]
    assert passed[-1] == found.winner
    assert all(each in passed for each in tested[:-1])
    assert [each.num_bytes for each in tested] == sorted((each.num_bytes for each in tested), reverse=True)
    assert {each.preset for each in found.points} == {False, True}
    assert all(each.speed for each in found.points if each.num_searched == NUM["search"])


def test_what_a_search_leaves_can_be_read_replayed_and_served(story: Story, tmp_path: Path) -> None:
    out, found = story.given.out, story.found
    assert found.winner is not None
    plan = msgspec.json.decode((out / "plan.json").read_bytes(), type=Plan)
    assert plan.splits == story.given.task.hashes
    assert plan.alpha == 0.05
    points = json.loads((out / "points.json").read_bytes())
    assert {each["name"] for each in points} == {each.name for each in found.points}
    ET.fromstring((out / "frontier.svg").read_text())  # noqa: S314 - our own
    assert found.winner.sha256 in (out / "README.md").read_text()
    file = out / f"{MODEL.name}.gguf"
    assert verified.complaint(file) == ""
    model = student.load(MODEL)
    batches = quantize_task.tokens(model, some(story.given.task.calibration, 256, 0))
    again = to_gguf(MODEL, tmp_path / "again.gguf", "F16", coded=applied(model, read(out / "recipe.json"), batches))
    assert sha256_of(again) == found.winner.sha256
    rows = story.given.task.gate[:4]
    told = served(file, [each.prompt for each in rows], max_tokens=60, watch=lambda _: None)
    assert all(told.texts)


# --- what qualifies, and what is refused


@pytest.fixture
def strict(task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if there were 4 bits and no more, for a model that is to say the very same words."""
    monkeypatch.setattr(quantize_model, "NARROW", ("Q4_0",))
    monkeypatch.setattr(candidates, "fitting", lambda _: ["Q4_0"])
    parent = to_gguf(MODEL, tmp_path / "parent.gguf", "F16")
    for part in ("search", "gate"):
        prompts = [each.prompt for each in quantize_task.rows(task.with_name(f"{part}.jsonl"))]
        texts = served(parent, prompts, max_tokens=60, watch=lambda _: None).texts
        tables.write(
            tmp_path / f"{part}.jsonl", [{"prompt": a, "completion": b} for a, b in zip(prompts, texts, strict=True)]
        )
    return written(tmp_path / "exact.toml", "exact", calibration=str(task.with_name("calibration.jsonl")))


def test_where_none_qualifies_the_model_stays_as_it_is(strict: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ["quantize", "search", str(MODEL), "--task", str(strict), "-o", str(out), "--json"]
    assert main([*common, "--margin", MARGIN, "--budget", "30s", "--cpu"]) == 1
    found = msgspec.json.decode((out / "found.json").read_bytes(), type=Found)
    assert found.status == "none"
    assert found.winner is None
    assert found.left_out == ("training",)
    assert "the model stays as it is" in found.why
    assert not list(out.glob("*.gguf"))
    assert not (out / "recipe.json").exists()


def test_what_was_trained_is_judged_as_what_it_is(strict: Path, tmp_path: Path) -> None:
    """A point's divergence is of the codes that training found, and stays so when the search goes on."""
    taught = []

    def teach(folder: Path, recipe: Recipe, task: Task, _out: Path, seconds: float) -> dict[str, Coded]:
        taught.append(seconds)
        model = student.load(folder)  # a bad teacher: rounded codes, so that the divergence tells them from GPTQ's
        return applied(model, uniform(recipe.default.format, "round"), quantize_task.tokens(model, task.calibration))

    given = job(MODEL, strict, tmp_path / "out", train=teach, target="size")
    points = {each.name: each for each in searched(given).points}
    (name,) = (each for each in points if each.endswith(" trained"))
    before, after = points[name.removesuffix(" trained")], points[name]
    assert before.kl is not None
    assert after.kl is not None
    assert after.kl > 1.2 * before.kl
    assert after.sha256 != before.sha256
    for file in ("found.json", "order.json", "points.json"):
        (given.out / file).unlink(missing_ok=True)
    again = {each.name: each for each in searched(given).points}
    assert again[name].kl == after.kl
    assert len(taught) == 1
    assert 0 < taught[0] < given.budget_s


def test_a_model_that_cannot_do_the_task_is_not_searched(task: Path, tmp_path: Path) -> None:
    for part in ("search", "gate"):
        prompts = [each.prompt for each in quantize_task.rows(task.with_name(f"{part}.jsonl"))]
        tables.write(tmp_path / f"{part}.jsonl", [{"prompt": each, "completion": "42"} for each in prompts])
    exact = written(tmp_path / "exact.toml", "exact", calibration=str(task.with_name("calibration.jsonl")))
    with pytest.raises(DistillError, match=r"the model itself has 0 of right.*anything passes"):
        searched(job(MODEL, exact, tmp_path / "out"))


def test_a_folder_holds_one_search(story: Story, task: Path, tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=r"holds another search \(target\): name another folder"):
        searched(replace(story.given, target="cost"))
    (tmp_path / "thesis.doc").write_text("do not touch")
    with pytest.raises(DistillError, match="is not empty, and holds no search"):
        searched(job(MODEL, task, tmp_path))


def test_calibration_that_holds_what_the_gate_asks_is_refused(task: Path, tmp_path: Path) -> None:
    rows = list(tables.read(task.with_name("calibration.jsonl")))
    leaked = next(tables.read(task.with_name("gate.jsonl")))
    tables.write(tmp_path / "leaking.jsonl", [*rows, leaked])
    splits = {name: str(task.with_name(f"{name}.jsonl")) for name in ("search", "gate")}
    leaking = written(tmp_path / "leaking.toml", calibration="leaking.jsonl", **splits)
    with pytest.raises(
        DistillError, match=rf"1 rows of calibration hold what gate asks \(row {len(rows) + 1}: .*take them"
    ):
        quantize_task.load(leaking)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "nothing"], "no task 'nothing'.*recipes/tasks/nothing.toml.*banking77, clinc150, e2e"),
        (["--scorer", "taste"], "no verifier 'taste'.*or bleu or exact"),
        (["--scorer", "nowhere:nothing"], "cannot be loaded"),
        (["--margin", "a bit"], "write a share such as 0.01"),
        (["--margin", "0.5bleu"], "scored by a share of right answers"),
        (["--margin", "0.001"], "60 prompts cannot show a margin of 0.001: it takes"),
        (["--budget", "soon"], "write a time such as 90s"),
        (["--at-most", "2"], "a share from 0 to below 1"),
    ],
)
def test_what_cannot_be_searched_is_told(
    options: list[str], said: str, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["quantize", "search", str(MODEL), "--task", str(task), "--margin", MARGIN, "-o", str(tmp_path / "out")]
    assert main([*common, *options]) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize("lacking", ["*.safetensors", "config.json", "tokenizer.json", "*"])
def test_a_model_without_weights_is_none(task: Path, tmp_path: Path, lacking: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.gguf*"))
    for each in folder.glob(lacking):
        each.unlink()
    with pytest.raises(DistillError, match="is no model with weights"):
        searched(job(folder, task, tmp_path / "out"))
