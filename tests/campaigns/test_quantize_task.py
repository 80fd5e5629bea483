"""A task's rows and splits, what leaks between them, and how answers are scored beside the parent's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.campaigns import quantize_task
from stepwell.campaigns.quantize_score import Settings, compared, facts
from stepwell.campaigns.quantize_task import Row, Task, check, cut, key, leaked, merged
from stepwell.errors import ConfigError, DistillError, StoreError
from stepwell.quantize.search import Margins
from stepwell.store import tables

FACTS = "name[The Mill], food[French], area[riverside]"
SAID = "The Mill serves French food by the river."


def rows(*prompts: str) -> tuple[Row, ...]:
    return tuple(Row(prompt, f"answer to {prompt}") for prompt in prompts)


def task(calibration: tuple[Row, ...], search: tuple[Row, ...], gate: tuple[Row, ...]) -> Task:
    return Task("t", "exact", 8, calibration, search, gate)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.text("abcdef ", min_size=1, max_size=12).filter(str.strip), min_size=30, max_size=60))
def test_one_file_is_cut_so_that_what_asks_the_same_lies_together(
    tmp_path_factory: pytest.TempPathFactory, prompts: set[str]
) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    tables.write(file, [{"prompt": each, "completion": "x"} for each in sorted(prompts)])
    found = cut(file)
    splits = [{key(each.prompt) for each in part} for part in (found.calibration, found.search, found.gate)]
    assert not splits[0] & splits[1] | splits[0] & splits[2] | splits[1] & splits[2]
    assert set().union(*splits) == {key(each) for each in prompts}
    assert cut(file) == found


def test_the_same_facts_in_another_order_ask_the_same(tmp_path: Path) -> None:
    other = "area[riverside], name[The Mill], food[French]"
    assert key(FACTS) == key(other)
    with pytest.raises(DistillError, match="1 rows of calibration hold what gate asks"):
        check(task((Row(other, SAID),), rows("a"), (Row(FACTS, SAID),)), str(tmp_path))


def test_calibration_texts_that_quote_the_gate_are_refused() -> None:
    long = "tell me which of these cards was sent to the wrong house last week please"
    quoting = Row("a letter", f"They wrote: {long}")
    gate = (Row(long, "card arrival"),)
    with pytest.raises(DistillError, match="row 1: words of a held-out text: tell me which"):
        check(task((quoting,), rows("b"), gate))
    check(task(rows("a"), (quoting,), gate))  # whoever searches may know other texts that say the same


def test_a_prompt_that_comes_twice_is_one_with_two_references() -> None:
    assert merged([Row("a", "x"), Row("b", "y"), Row("a", "z", ("x", "w"))]) == (
        Row("a", "x", ("x", "z", "w")),
        Row("b", "y", ("y",)),
    )


def test_hashes_tell_splits_apart_by_what_they_say() -> None:
    one, other = task(rows("a"), rows("b"), rows("c")), task(rows("a"), rows("b"), rows("d"))
    assert one.hashes["search"] == other.hashes["search"]
    assert one.hashes["gate"] != other.hashes["gate"]
    assert one.identity != other.identity


def write(folder: Path, text: str) -> Path:
    for name in quantize_task.SPLITS:
        tables.write(folder / f"{name}.jsonl", [{"prompt": f"{name} {at}", "completion": "x"} for at in range(3)])
    (folder / "t.toml").write_text(text)
    return folder / "t.toml"


SPLITS = 'calibration = "calibration.jsonl"\nsearch = "search.jsonl"\ngate = "gate.jsonl"\n'


def test_a_task_file_names_its_rows_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quantize_task.load(write(tmp_path, SPLITS + 'scorer = "exact"\nmax_tokens = 5\n'))
    assert (found.name, found.scorer, found.max_tokens) == ("t", "exact", 5)
    assert [len(found.calibration), len(found.search), len(found.gate)] == [3, 3, 3]
    monkeypatch.setenv("ROWS", str(tmp_path))
    again = write(tmp_path, SPLITS.replace('"gate.jsonl', '"$ROWS/gate.jsonl'))
    assert quantize_task.load(again).gate == found.gate
    assert quantize_task.load(again, scorer="values").scorer == "values"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (SPLITS + "scorer = 5", ConfigError, "t.toml:4: scorer"),
        (SPLITS + 'score = "bleu"', ConfigError, "did you mean 'scorer'"),
        (SPLITS + 'scorer = "taste"', ConfigError, "t.toml:4: scorer: no verifier 'taste'.*bleu or exact"),
        ('calibration = "calibration.jsonl"\nsearch = "search.jsonl"', ConfigError, "'gate' is missing"),
        (SPLITS.replace('"gate.jsonl', '"nowhere.jsonl'), ConfigError, "t.toml:3: gate: nowhere.jsonl"),
        (
            SPLITS.replace('"gate.jsonl', '"$NO_SUCH_FOLDER/x.jsonl'),
            ConfigError,
            "t.toml:3: gate: .*variable is not set",
        ),
        (SPLITS.replace('"gate.jsonl', '"search.jsonl'), DistillError, "3 rows of search hold what gate asks"),
        (SPLITS.replace('"gate.jsonl', '"bad.jsonl'), DistillError, "bad.jsonl:1: is no row of a task"),
        (SPLITS.replace('"gate.jsonl', '"blank.jsonl'), DistillError, "blank.jsonl:1: a row needs the texts"),
        (SPLITS.replace('"gate.jsonl', '"cut.jsonl'), StoreError, "cut.jsonl"),
        (SPLITS.replace('"gate.jsonl', '"empty.jsonl'), DistillError, "the gate split has no rows"),
    ],
)
def test_a_task_that_is_wrong_is_told_with_its_place(
    tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": 5}\n')
    (tmp_path / "blank.jsonl").write_text('{"prompt": "a", "completion": " "}\n')
    (tmp_path / "cut.jsonl").write_text('{"prompt": "a", "comp')
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(error, match=said):
        quantize_task.load(write(tmp_path, text))


# --- scores


def judged(said: list[str], parent: list[str], given: tuple[Row, ...], scorer: str, margins: Margins) -> list[float]:
    found = compared(given, said, parent, Settings(scorer, margins, 0.05, 200, 0))
    return [value for each in found for value in (each.score, each.parent, each.low, each.high)]


def test_answers_are_right_by_the_tasks_own_scorer() -> None:
    given = (Row("a", "Card arrival"), Row("b", "x", ("x", "y")), Row("c", "z"))
    score, parent, low, high = judged(
        ["card  arrival", "y", "no"], ["card arrival", "no", "z"], given, "exact", Margins(right=0.1)
    )
    assert (score, parent) == (2 / 3, 2 / 3)
    assert low < 0 < high
    (only,) = compared((Row(FACTS, SAID),), [SAID], ["The Mill."], Settings("slots", Margins(right=0.1), 0.05, 9, 0))
    assert (only.metric, only.score, only.parent) == ("right", 1.0, 0.0)


def test_bleu_is_joined_by_the_facts_where_they_can_be_checked() -> None:
    given = tuple(Row(FACTS.replace("Mill", name), SAID.replace("Mill", name)) for name in ("Mill", "Fox", "Heron"))
    assert facts(given)
    assert not facts((*given, Row("give_opinion(name[SpellForce], rating[poor])", "x")))
    assert not facts(rows("no facts at all"))
    said = [each.completion for each in given]
    bleu, right = compared(given, said, said, Settings("bleu", Margins(0.5, 0.01), 0.05, 200, 0))
    assert (bleu.metric, right.metric) == ("bleu", "right")
    assert bleu.score == pytest.approx(100)
    assert (bleu.low, bleu.high, bleu.passes) == (0, 0, True)
    assert not right.passes  # three prompts show nothing of one in a hundred
    worse = compared(given, ["The Mill."] * 3, said, Settings("bleu", Margins(0.5, 0.01), 0.05, 200, 0))
    assert all(each.score < each.parent for each in worse)


def test_leaks_are_named_by_their_rows() -> None:
    found = leaked([*rows("a", "b"), Row(FACTS, SAID)], [Row(FACTS, "x"), *rows("b")])
    assert sorted(found) == [1, 2]
