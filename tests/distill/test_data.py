"""Rows to learn from: what is no row is told, and what weighs nothing is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.distill.data import Example, examples
from stepwell.errors import DistillError


def rows(folder: Path, *given: dict[str, Any]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    return file


def test_weights_count_and_a_row_of_weight_0_is_left_out(tmp_path: Path) -> None:
    file = rows(
        tmp_path,
        {"prompt": "a", "completion": "A"},
        {"prompt": "b", "completion": "B", "weight": 0},
        {"prompt": "c", "completion": "C", "weight": 0.5},
        {"prompt": "d", "completion": "D", "weight": None},
    )
    assert examples(file) == [Example("a", "A"), Example("c", "C", 0.5), Example("d", "D")]


@pytest.mark.parametrize("weight", [-1, "much", True, [1]])
def test_a_weight_that_is_none_is_told_with_its_row(tmp_path: Path, weight: object) -> None:
    file = rows(tmp_path, {"prompt": "a", "completion": "A"}, {"prompt": "b", "completion": "B", "weight": weight})
    with pytest.raises(DistillError, match=r"`weight` is .*: a number above 0") as told:
        examples(file)
    assert "2" in str(told.value)
