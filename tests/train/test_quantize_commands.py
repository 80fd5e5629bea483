"""`stepwell quantize sensitivity`, `apply` and `compare`: what people type, what they read, and what they are told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from runs import rows, words

from stepwell import verified
from stepwell.cli.main import main
from stepwell.distill import student
from stepwell.distill.plan import StudentSection
from stepwell.quantize import recipe, sensitivity
from stepwell.quantize.recipe import num_bytes
from stepwell.store import tables

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SECTION = StudentSection(hidden=32, layers=1, heads=2, kv_heads=1, inner=64, context=128)
SPLITS = {"calibration": slice(0, 12), "search": slice(12, 20), "gate": slice(20, 28)}


@dataclass(frozen=True)
class Place:
    folder: Path
    model: Path
    task: Path

    def run(self, *given: str) -> int:
        return main(["quantize", *given, "--task", str(self.task)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place")
    model = student.create(SECTION, words(folder / "words"), 0)
    student.save(model, folder / "model", {})
    held = [{"prompt": each.prompt, "completion": each.completion} for each in rows(30)[::2]]
    lines = ['scorer = "exact"', "max_tokens = 8"]
    for name, part in SPLITS.items():
        tables.write(folder / f"{name}.jsonl", held[part])
        lines.append(f'{name} = "{name}.jsonl"')
    (folder / "task.toml").write_text("\n".join(lines) + "\n")
    return Place(folder, folder / "model", folder / "task.toml")


@pytest.fixture(scope="module")
def mixture(place: Place) -> Path:
    out = ("--recipe", str(place.folder / "mixed.json"), "--out", str(place.folder / "table.json"))
    drawn = ("--picture", str(place.folder / "heat.svg"))
    given = ("sensitivity", str(place.model), "--rows", "6", "--formats", "Q8_0,Q4_0", "--bits", "6.5", "--json")
    assert place.run(*given, *out, *drawn) == 0
    return place.folder / "mixed.json"


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_sensitivity_leaves_a_table_a_mixture_within_its_budget_and_a_picture(place: Place, mixture: Path) -> None:
    table, mixed = sensitivity.read(place.folder / "table.json"), recipe.read(mixture)
    shapes = {entry.name: (entry.rows, entry.width) for entry in table.entries}
    assert table.formats == ("Q8_0", "Q4_0")
    assert num_bytes(mixed, shapes) <= table.num_weights * 6.5 / 8
    picture = ET.parse(place.folder / "heat.svg").getroot()  # noqa: S314 - our own
    cells = [each for each in picture.iter() if each.tag.endswith("rect")]
    assert len(cells) == len(table.entries) + len(table.names)  # one frame a matrix: what was taken


def test_sensitivity_shows_every_matrix_and_the_mixture(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("sensitivity", str(place.model), "--rows", "4", "--formats", "Q8_0", "--ms", "50") == 0
    said = capsys.readouterr().out
    assert "0.mlp.down_proj" in said
    assert "8.500 bits a weight" in said
    assert "ms of products a token" in said


def test_the_same_recipe_makes_the_same_bytes_and_its_file_is_verified(
    place: Place, mixture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for name in ("one", "two"):
        out = place.folder / name / "model.gguf"
        assert place.run("apply", str(mixture), str(place.model), "--out", str(out), "--json") == 0
        made.append(told(capsys))
        assert not verified.complaint(out)
        assert [each.name for each in sorted(out.parent.iterdir())] == ["model.gguf", "model.gguf.manifest.json"]
    assert made[0]["sha256"] == made[1]["sha256"]
    assert set(made[0]["formats"]) == {"Q8_0", "Q4_0"}


def test_a_file_is_compared_with_its_parent_and_with_others(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    files = [place.folder / f"{name}.gguf" for name in ("Q8_0", "Q4_0")]
    for file in files:
        assert place.run("apply", file.stem, str(place.model), "--out", str(file), "--method", "round") == 0
    assert "verified" in capsys.readouterr().out
    given = ("compare", *map(str, files), "--model", str(place.model), "--rows", "6")
    assert place.run(*given, "--json") == 0
    one, other = told(capsys)["files"]
    assert one["num_bytes"] > other["num_bytes"]
    assert 0 <= one["kl"] < other["kl"]
    assert one["kl_ratio"]["value"] == 1.0
    assert other["kl_ratio"]["low"] <= other["kl_ratio"]["value"] <= other["kl_ratio"]["high"]
    assert one["tokens_per_s"]["low"] <= one["tokens_per_s"]["value"]
    assert [each["metric"] for each in one["scores"]] == ["right"]
    assert place.run(*given) == 0
    assert "Q4_0.gguf" in capsys.readouterr().out


def test_layers_in_four_bits_make_a_folder_for_vllm(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    out = place.folder / "int4"
    assert place.run("apply", "int4_g32", str(place.model), "--out", str(out), "--json") == 0
    assert told(capsys)["formats"] == {"F16": 1, "int4_g32": 7}
    assert json.loads((out / "config.json").read_text())["quantization_config"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("sensitivity", "MODEL", "--recipe", "r.json"), "recipe: needs a budget"),
        (("sensitivity", "MODEL", "--rows", "1"), "rows: is 1: at least 2"),
        (("sensitivity", "MODEL", "--rows", "4", "--formats", "Q9_Z"), "no format 'Q9_Z'"),
        (("sensitivity", "MODEL", "--rows", "4", "--formats", "Q8_0,Q4_0", "--bits", "1"), "the smallest formats take"),
        (("sensitivity", "nowhere"), "is no model"),
        (("apply", "Q9_Z", "MODEL", "--out", "x.gguf"), "'Q9_Z' is neither a file nor a format"),
        (("apply", "Q4_K", "MODEL", "--out", "x.gguf"), "is 32 wide, and Q4_K takes 256 at a time"),
        (("compare", "nowhere.gguf", "--model", "MODEL"), "nowhere.gguf: there is no such file"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    place: Place, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], said: str
) -> None:
    assert place.run(*(str(place.model) if each == "MODEL" else each for each in given)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
