"""The GGUF writer: what it makes of the house writer's folder is what ships, and what it cannot export it names."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from conftest import ROOT
from stepwell.errors import DistillError
from stepwell.quantize import recipe
from stepwell.quantize.export import to_gguf
from stepwell.quantize.recipe import chosen
from stepwell.quantize.weights import read

MODEL = ROOT / "models" / "house-writer"


def fields(file: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(file)
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


def weights(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {each.name: gguf.dequantize(each.data, each.tensor_type) for each in gguf.GGUFReader(file).tensors}


def changed(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(MODEL, folder)
    held = json.loads((folder / file).read_text())
    change(held)
    (folder / file).write_text(json.dumps(held))
    return folder


@pytest.mark.parametrize("folder", [MODEL, MODEL.with_name("house-student")], ids=lambda folder: folder.name)
def test_the_shipped_file_is_the_folders_by_the_recipe_beside_it(tmp_path: Path, folder: Path) -> None:
    out = to_gguf(folder, tmp_path / "model.gguf", name=folder.name)
    shipped = folder / f"{folder.name}.gguf"
    told, wanted = fields(out), fields(shipped)
    assert {name: told[name] for name in wanted if name != "general.file_type"} == {
        name: value for name, value in wanted.items() if name != "general.file_type"
    }
    ours, theirs = weights(out), weights(shipped)
    assert ours.keys() == theirs.keys()
    for name, each in theirs.items():
        assert np.sqrt(np.square(ours[name] - each).mean()) <= 0.6 * np.sqrt(np.square(each).mean()), name
    shapes = {name.removeprefix("model."): each.shape for name, each in read(folder) if each.ndim > 1}
    tied = json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    asked = chosen(
        recipe.read(folder / "recipe.json"), {k: v for k, v in shapes.items() if not (tied and k == "lm_head.weight")}
    )
    kinds = Counter(each.tensor_type.name for each in gguf.GGUFReader(shipped).tensors if len(each.shape) > 1)
    assert kinds == Counter(rule.format for rule in asked.values())
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("kind", "error"), [("F32", 0.0), ("F16", 1e-3), ("BF16", 0.0), ("Q4_0", 0.2)])
def test_each_format_holds_the_weights_as_well_as_it_can(tmp_path: Path, kind: str, error: float) -> None:
    held = weights(to_gguf(MODEL, tmp_path / "model.gguf", kind))
    table = dict(read(MODEL))["model.embed_tokens.weight"]
    assert np.abs(held["token_embd.weight"] - table).max() <= error * np.abs(table).max()


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", lambda held: held.update(model_type="mamba"), "'mamba' model"),
        ("config.json", lambda held: held.update(rope_parameters={"rope_type": "yarn"}), "scaled positions"),
        ("tokenizer.json", lambda held: held["model"].update(type="Unigram"), "no BPE"),
    ],
)
def test_what_cannot_be_exported_is_named(
    tmp_path: Path, file: str, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    folder = changed(tmp_path / "model", file, change)
    with pytest.raises(DistillError, match=said):
        to_gguf(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_format_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="Q8_0"):
        to_gguf(MODEL, tmp_path / "model.gguf", "Q9")


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(DistillError, match=r"model.safetensors: is damaged"):
        to_gguf(folder, tmp_path / "model.gguf")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DistillError, match="is not there"):
        to_gguf(folder, tmp_path / "model.gguf")
