"""The five tasks that the search is measured on: their parts share nothing, their students fit every format."""

from __future__ import annotations

import csv
import json
import os
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipes.tasks import rows, sources

from conftest import ROOT
from stepwell.campaigns import quantize_task, specialist_file
from stepwell.quantize.formats import FORMATS
from stepwell.store import tables

RECIPES = ROOT / "recipes" / "tasks"
PARTS = ("dev", "search", "gate", "sealed")
MOST_PARAMETERS = 1_000_000


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.just(["text"]), max_size=60))
def test_parts_by_hash_share_nothing_and_leave_nothing_out(texts: sources.Texts) -> None:
    cuts = sources.by_hash(texts, 0.2, 0.3)
    assert sum(map(len, cuts)) == len(texts)
    assert {prompt for cut in cuts for prompt in cut} == set(texts)


def test_shares_are_what_is_asked() -> None:
    texts = {f"prompt {number}": ["text"] for number in range(4000)}
    left, fifth, third = (len(cut) / len(texts) for cut in sources.by_hash(texts, 0.2, 0.3))
    assert left == pytest.approx(0.5, abs=0.04)
    assert fifth == pytest.approx(0.2, abs=0.04)
    assert third == pytest.approx(0.3, abs=0.04)


def test_facts_in_another_order_are_in_the_same_part() -> None:
    assert sources.key("name[A], food[French]") == sources.key("food[French], name[A]")
    assert sources.key("name[A], food[French]") != sources.key("name[A], food[Italian]")
    assert sources.key("Where IS my card?") == sources.key("where is my  card?")


def test_an_assistants_acts_are_one_line() -> None:
    actions = [
        {"act": "CONFIRM", "slot": "time", "values": ["7 pm"]},
        {"act": "CONFIRM", "slot": "date", "values": ["today"]},
        {"act": "REQ_MORE", "slot": "", "values": []},
    ]
    told = sources.acted({"service": "Restaurants_2", "actions": actions})
    assert told == "Restaurants: confirm(time[7 pm], date[today]); req_more()"


def test_a_task_is_written_whole_and_shares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "banking77"
    data.mkdir()
    for part, num in (("train", 600), ("test", 200)):
        with (data / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "category"])
            writer.writerows(
                [f"{part} question {number} of a customer?", f"label_{number % 7}"] for number in range(num)
            )
    monkeypatch.setenv("STEPWELL_DATA", str(tmp_path))
    told = rows.write("banking77", tmp_path / "out")
    assert told["dev"] == rows.NUM_DEV
    assert sum(told[part] for part in ("train", "dev", "search", "gate", "sealed")) == 800
    check_parts(tmp_path / "out")
    again = (tmp_path / "out" / "train.jsonl").read_bytes()
    rows.write("banking77", tmp_path / "out")
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == again
    words = json.loads((tmp_path / "out" / "words" / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(words["model"]["vocab"]) <= rows.VOCABULARY


def check_parts(folder: Path) -> None:
    """No two parts ask the same."""
    asked = {part: {sources.key(row["prompt"]) for row in tables.read(folder / f"{part}.jsonl")} for part in PARTS}
    asked["train"] = {sources.key(row["prompt"]) for row in tables.read(folder / "train.jsonl")}
    for one, other in combinations(asked, 2):
        assert not asked[one] & asked[other], f"{one} and {other} ask the same"
    sample = {sources.key(row["prompt"]) for row in tables.read(folder / "calibration.jsonl")}
    assert sample <= asked["train"]


@pytest.mark.parametrize("name", sources.NAMES)
def test_without_data_it_is_said_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPWELL_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="STEPWELL_DATA must name a folder with"):
        sources.parts(name)


@pytest.mark.parametrize("name", sources.NAMES)
def test_a_students_recipe_is_small_and_fits_every_format(name: str) -> None:
    recipe = specialist_file.load(RECIPES / f"{name}-student.toml")
    sizes = recipe.file.student
    head = sizes.hidden // sizes.heads
    attention = 2 * sizes.hidden**2 + 2 * sizes.hidden * sizes.kv_heads * head
    norms = (2 * sizes.layers + 1) * sizes.hidden
    layers = sizes.layers * (attention + 3 * sizes.hidden * sizes.inner)
    assert rows.VOCABULARY * sizes.hidden + layers + norms <= MOST_PARAMETERS
    served = [each for each in FORMATS.values() if each.engine == "gguf"]
    assert all(each.fits(width) for each in served for width in (sizes.hidden, sizes.inner))


@pytest.mark.parametrize("name", sources.NAMES)
def test_a_tasks_file_names_its_rows(name: str) -> None:
    text = (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
    for part in quantize_task.SPLITS:
        assert f'{part} = "runs/tasks/{name}/{part}.jsonl"' in text
    assert "sealed" not in text


@pytest.mark.skipif("STEPWELL_DATA" not in os.environ, reason="set STEPWELL_DATA to a folder with viggo/ and sgd/")
@pytest.mark.parametrize("name", ["viggo", "sgd", "banking77", "clinc150"])
def test_the_data_sets_parts_share_nothing_and_are_large(name: str) -> None:
    parts = sources.parts(name)
    asked = [{sources.key(prompt) for prompt in part} for part in (parts.learn, parts.search, parts.gate, parts.sealed)]
    assert not any(one & other for one, other in combinations(asked, 2))
    assert min(map(len, asked)) > 300
