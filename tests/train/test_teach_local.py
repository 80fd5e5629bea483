"""A teacher that runs here: its texts, its scores, and what it expects of every token; part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ROOT
from stepwell.distill import local
from stepwell.distill.data import Example
from stepwell.distill.local import expected
from stepwell.distill.sparse import SparseRows
from stepwell.distill.student import load
from stepwell.distill.teach import Job, TeacherSection, teach
from stepwell.errors import DistillError
from stepwell.store import tables

WRITER = ROOT / "models" / "house-writer"
ROWS = [
    {"id": f"r{at}", "prompt": f"name[{name}], eatType[pub], food[{food}]", "completion": f"{name} is a {food} pub."}
    for at, (name, food) in enumerate(
        (name, food) for name in ("The Eagle", "The Mill", "Zizzi") for food in ("Thai", "French", "Italian")
    )
]


def taught(out: Path, rows: list[dict[str, Any]] = ROWS, **how: Any) -> list[dict[str, Any]]:
    section = TeacherSection(path=str(WRITER), max_tokens=48, **how)
    made = teach(Job(section, out, out), rows)
    assert made.complete
    assert made.usd == 0
    return list(tables.read(out / "rows.jsonl"))


def test_it_writes_texts_and_says_who_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PART_ROWS", 4)
    asked = [{"id": row["id"], "prompt": row["prompt"]} for row in ROWS]
    found = taught(tmp_path, asked)
    assert all("pub" in row["completion"] and row["generator"] == "house-writer" for row in found)
    assert len(list((tmp_path / "parts").iterdir())) == 3

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("what is there is not done again")

    monkeypatch.setattr(local, "generate", never)
    assert taught(tmp_path, asked) == found


def test_several_texts_are_rows_of_their_own(tmp_path: Path) -> None:
    found = taught(tmp_path, ROWS[:2], num=3, temperature=1.0)
    assert len(found) == len({row["id"] for row in found}) > 2
    assert {row["prompt"] for row in found} == {row["prompt"] for row in ROWS[:2]}


def test_its_logits_are_those_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PART_ROWS", 4)
    taught(tmp_path, give="logits", least=0.001)
    model = load(WRITER)
    read = SparseRows.open(tmp_path / "logits", model.tokenizer_hash)
    assert len(read) == len(ROWS)
    for row in ROWS:
        found = read.get(row["id"])
        assert found is not None
        assert found.token_ids.tolist() == model.text_ids(row["completion"])
        prompt, text = model.prompt_ids(row["prompt"]), model.text_ids(row["completion"])
        with torch.inference_mode():
            logits = model.logits(model.hidden(torch.tensor([prompt + text[:-1]])))[0, len(prompt) - 1 :]
        true = torch.softmax(logits, dim=-1).numpy()
        used = np.isfinite(found.logp)
        there = np.take_along_axis(true, found.ids.astype(np.int64), axis=1)
        assert np.abs(np.where(used, there - np.exp(found.logp), 0)).max() < 0.03  # one byte, and perhaps bf16
        assert (there[:, 0] > true.max(axis=1) - 0.03).all()
    with pytest.raises(DistillError, match="was written with the tokenizer"):
        SparseRows.open(tmp_path / "logits", "0" * 64)


def test_logits_of_other_settings_replace_the_old_ones(tmp_path: Path) -> None:
    taught(tmp_path, give="logits")
    taught(tmp_path, give="logits", sampled=12)
    read = SparseRows.open(tmp_path / "logits", load(WRITER).tokenizer_hash)
    assert (read.kind, len(read)) == ("sampled", len(ROWS))


def test_logits_without_texts_are_of_its_own_texts(tmp_path: Path) -> None:
    found = taught(tmp_path, [{"id": row["id"], "prompt": row["prompt"]} for row in ROWS[:3]], give="logits")
    model = load(WRITER)
    read = SparseRows.open(tmp_path / "logits", model.tokenizer_hash)
    for row in found:
        kept = read.get(row["id"])
        assert kept is not None
        assert kept.token_ids.tolist() == model.text_ids(row["completion"])
        assert (kept.ids[:, 0] == kept.token_ids).mean() > 0.9


def test_scores_prefer_what_fits(tmp_path: Path) -> None:
    wrong = [{**row, "id": f"w{row['id']}", "completion": "Bananas fly over the river bank at noon."} for row in ROWS]
    found = {row["id"]: row["score"] for row in taught(tmp_path, [*ROWS, *wrong], give="scores")}
    assert all(0 < found[f"w{row['id']}"] < found[row["id"]] < 1 for row in ROWS)


def test_each_example_is_expected_as_if_it_were_alone() -> None:
    model = load(WRITER)
    rows = [Example(row["prompt"], row["completion"], id=row["id"]) for row in ROWS]
    together = {name: logp for name, _, logp in expected(model, rows)}
    for row in rows[:3]:
        ((_, _, alone),) = expected(model, [row])
        assert np.allclose(together[row.id], alone, atol=1e-4)


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    section = TeacherSection(path=str(tmp_path))
    with pytest.raises(DistillError, match="is no model"):
        teach(Job(section, tmp_path, tmp_path / "out"), ROWS)
