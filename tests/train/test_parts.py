"""A batch cut into parts of like length learns what the whole learns, with less padding."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import new, plan

from stepwell.distill import train
from stepwell.distill.batch import MOST_PARTS, Row, Text, of_like_length
from stepwell.distill.data import Example


def padded(parts: list[list[Row]]) -> int:
    return sum(len(part) * max(row.num_tokens for row in part) for part in parts)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=60), st.integers(0, 500))
def test_every_row_is_in_one_part_and_each_cut_pays(lengths: list[tuple[int, int]], spare: int) -> None:
    rows = [Row([0] * prompt, (Text([1] * text, 1.0, str(at)),), "") for at, (prompt, text) in enumerate(lengths)]
    parts = of_like_length(rows, spare)
    assert sorted(row.texts[0].id for part in parts for row in part) == sorted(row.texts[0].id for row in rows)
    assert 1 <= len(parts) <= MOST_PARTS
    assert padded(parts) + spare * (len(parts) - 1) <= padded([rows])


def test_parts_learn_what_the_whole_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    rows = [Example(f"name[{at}]", " ".join(["word"] * chance.randint(1, 16))) for at in range(24)]
    told: dict[int, list[float]] = {}
    for spare in (0, 1_000_000):
        monkeypatch.setattr(train, "SPARE_TOKENS", {"cpu": spare})
        losses = told.setdefault(spare, [])
        torch.set_num_threads(1)
        train.train(
            plan(steps=5, batch_tokens=4_000), new(tmp_path / "words"), rows, tmp_path / str(spare),
            watch=lambda one, losses=losses: losses.append(one.loss),
        )  # fmt: skip
    assert told[0] == pytest.approx(told[1_000_000], rel=1e-4)
