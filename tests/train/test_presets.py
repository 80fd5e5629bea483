"""The presets that the search is measured against: every one is made, in order of size, and told what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bench.quantize import gain, presets
from folders import write_words

from stepwell.campaigns.quantize_task import Row, Task
from stepwell.distill import student
from stepwell.distill.plan import StudentSection

pytest.importorskip("xllamacpp")
SIZES = StudentSection(hidden=256, layers=1, heads=4, kv_heads=1, inner=256)
ROWS = tuple(Row(f"food[French], name[The {word}]", f"The {word} is French.") for word in ("Mill", "Fox", "Bell"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[presets.Preset], Path]:
    folder = tmp_path_factory.mktemp("presets")
    model = student.create(SIZES, write_words(folder / "words"))
    with torch.no_grad():
        model.module.embed_tokens.weight.mul_(5)
    student.save(model, folder / "student", {})
    task = Task("tiny", "bleu", 8, ROWS, ROWS, ROWS)
    return presets.made(folder / "student", task, folder / "out"), folder


def test_every_preset_is_there_from_the_smallest_up(made: tuple[list[presets.Preset], Path]) -> None:
    found, _ = made
    sizes = [each.num_bytes for each in found]
    assert sizes == sorted(sizes)
    assert {each.name for each in found} == {name for name, *_ in presets.ways()}
    assert all(each.matrix_bytes < each.num_bytes for each in found)
    assert all(each.guided == each.name.endswith("imatrix") for each in found)


def test_one_format_for_all_takes_its_bits(made: tuple[list[presets.Preset], Path]) -> None:
    found, _ = made
    by_name = {each.name: each for each in found}
    ratio = by_name["pure Q2_K"].matrix_bytes / by_name["pure Q8_0"].matrix_bytes
    assert ratio == pytest.approx((84 / 256) / (34 / 32), rel=0.01)


def test_importances_change_what_is_written_and_nothing_is_made_twice(
    made: tuple[list[presets.Preset], Path],
) -> None:
    found, folder = made
    by_name = {each.name: each.file for each in found}
    assert by_name["pure Q4_K"].read_bytes() != by_name["pure Q4_K imatrix"].read_bytes()
    before = by_name["pure Q4_K"].stat().st_mtime_ns
    task = Task("tiny", "bleu", 8, ROWS, ROWS, ROWS)
    again = presets.made(folder / "student", task, folder / "out")
    assert again == found
    assert by_name["pure Q4_K"].stat().st_mtime_ns == before


def test_smaller_is_said_in_percent() -> None:
    assert np.isclose(gain.smaller(75, 100), 25)
    assert gain.smaller(100, 100) == 0
