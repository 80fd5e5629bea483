"""The presets that the search is measured against: every one is made, in order of size, and told what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bench.quantize import gain, presets
from folders import write_words

from stepwell.campaigns.quantize_task import Row, Task
from stepwell.distill import student
from stepwell.distill.plan import StudentSection
from stepwell.quantize.frontier import Difference

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


# --- the rule that chooses among them


TASK = Task("scripted", "exact", 8, ROWS, ROWS, ROWS[:1])


@dataclass
class Scripted:
    """A bench that knows beforehand how far each preset's score lies below the parent's on both splits."""

    losses: dict[str, tuple[float, float]]
    asked: list[tuple[str, str]] = field(default_factory=list)
    task: Task = TASK

    def compared(self, file: Path, rows: Sequence[Row]) -> tuple[Difference, ...]:
        gate = rows is self.task.gate
        self.asked.append((file.name, "gate" if gate else "search"))
        loss = self.losses[file.name][gate]
        return (Difference("right", 0.9 - loss, 0.9, -loss - 0.005, -loss + 0.005, 0.01 + loss, 0.01),)

    @property
    def job(self) -> SimpleNamespace:
        return SimpleNamespace(alpha=0.05)

    def moved(self, file: Path) -> float:
        return self.losses[file.name][0]


def ladder(losses: dict[str, tuple[float, float]]) -> list[presets.Preset]:
    return [presets.Preset(name, Path(name), at, at) for at, name in enumerate(losses, 1)]


STAY = presets.Preset("16 bits", Path("16"), 100, 100)


def chosen(losses: dict[str, tuple[float, float]]) -> tuple[str, str, Scripted]:
    bench = Scripted(losses)
    preset, easier = gain.best(bench, ladder(losses), STAY)  # type: ignore[arg-type]
    return preset.name, easier.name, bench


def test_the_smallest_that_both_splits_pass_is_chosen() -> None:
    preset, easier, bench = chosen({"Q2": (0.05, 0.05), "Q3": (0.002, 0.002), "Q4": (0.001, 0.0), "Q8": (0.0, 0.0)})
    assert (preset, easier) == ("Q3", "Q3")
    assert ("Q2", "gate") not in bench.asked


def test_what_the_gate_does_not_confirm_is_not_chosen() -> None:
    preset, easier, bench = chosen({"Q3": (0.002, 0.02), "Q4": (0.03, 0.0), "Q8": (0.0, 0.0)})
    assert (preset, easier) == ("Q8", "Q3")
    assert [name for name, split in bench.asked if split == "gate"] == ["Q8", "Q3"]


def test_where_none_passes_the_model_stays_as_it_is() -> None:
    preset, easier, _ = chosen({"Q3": (0.03, 0.0), "Q8": (0.02, 0.0)})
    assert (preset, easier) == ("16 bits", "16 bits")
