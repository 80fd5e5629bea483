"""Verification: the good file passes, every file with one thing wrong is refused, and the manifest says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench.quantize.broken import written
from folders import write_model
from safetensors.torch import load_file, save_file

from stepwell import verified as manifests
from stepwell.distill import student
from stepwell.errors import DistillError
from stepwell.quantize import manifest
from stepwell.quantize.engine import Text
from stepwell.quantize.export import to_gguf
from stepwell.quantize.findings import Limits
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.grids import Coded, fit, rounded
from stepwell.quantize.network import matrices
from stepwell.quantize.verify import verified

Tensors = dict[str, Any]


class Case:
    """A tiny Llama, its codes, the good file and texts."""

    def __init__(self, folder: Path) -> None:
        sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
        self.folder = write_model(folder / "tiny", "llama", **sizes)
        self.parent = student.load(self.folder)
        held = {name: weight.detach() for name, weight in matrices(self.parent).items()}
        self.coded = {name: rounded(fit(FORMATS["Q8_0"], each), each) for name, each in held.items()}
        self.file = to_gguf(self.folder, folder / "good.gguf", coded=self.coded)
        draw = np.random.default_rng(0)
        ids = [draw.integers(4, 300, 40).tolist() for _ in range(4)]
        self.texts: list[Text] = [(each[:10], each[10:]) for each in ids]

    def verified(self, file: Path, *, codes: bool) -> manifests.Manifest:
        coded: dict[str, Coded] = self.coded if codes else {}
        return verified(file, self.folder, self.parent, self.texts, coded=coded)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    return Case(tmp_path_factory.mktemp("case"))


def nudged(name: str, change: Callable[[np.ndarray[Any, Any]], object]) -> Callable[[Tensors], Tensors]:
    def break_(tensors: Tensors) -> Tensors:
        made = np.array(tensors[name])
        change(made)
        return tensors | {name: made}

    return break_


def half(at: int) -> Callable[[np.ndarray[Any, Any]], object]:
    """The 16-bit scale of every block, changed."""

    def change(held: np.ndarray[Any, Any]) -> None:
        blocks = held.reshape(-1, 34)
        blocks[:, :2] = np.full((len(blocks), 1), at, np.uint16).view(np.uint8)

    return change


def flip(held: np.ndarray[Any, Any]) -> None:
    held[3, 7] ^= 1


BREAKS: dict[str, tuple[Callable[[Tensors], Tensors], bool, str]] = {
    "one bit": (nudged("blk.1.attn_v.weight", flip), True, "other numbers than were made"),
    "a matrix of zeros": (nudged("blk.0.ffn_up.weight", lambda held: held.fill(0)), False, "far from the folder's"),
    "a norm of zeros": (nudged("blk.0.attn_norm.weight", lambda held: held.fill(0)), False, "far from the folder's"),
    "NaN": (nudged("blk.0.attn_output.weight", half(0x7E00)), False, "(weights_apart inf"),
    "infinite": (nudged("blk.0.attn_output.weight", half(0x7C00)), False, "(weights_apart inf"),
    "a tensor less": (
        lambda held: {k: v for k, v in held.items() if k != "blk.1.ffn_norm.weight"},
        False,
        "has no blk.1",
    ),
    "swapped halves": (
        lambda held: (
            held
            | {
                "blk.0.ffn_gate.weight": held["blk.0.ffn_up.weight"],
                "blk.0.ffn_up.weight": held["blk.0.ffn_gate.weight"],
            }
        ),
        False,
        "far from the folder's",
    ),
}


def test_the_good_file_passes_and_says_how(case: Case) -> None:
    for codes in (True, False):
        made = case.verified(case.file, codes=codes)
        assert made.passed, made.complaints
        assert made.figures["kl"] <= made.limits["kl"]
        assert made.num_tokens == 4 * 30
        assert made.formats == {"Q8_0": 16, "F32": 5}
        assert "xllamacpp" in made.engine
        assert made.processor
        assert manifest.check(case.file) == made


@pytest.mark.parametrize("how", BREAKS)
def test_whatever_is_wrong_with_the_weights_is_seen(case: Case, tmp_path: Path, how: str) -> None:
    change, needs_codes, said = BREAKS[how]
    file = written(case.file, tmp_path / "broken.gguf", change)
    made = case.verified(file, codes=needs_codes)
    assert not made.passed
    with pytest.raises(DistillError, match="did not pass its verification"):
        manifest.check(file)
    assert said in " ".join(made.complaints)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"eos_token_id": 5}, "eos_token_id"),
        ({"rms_norm_eps": 0.3}, "computes something else"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}, "computes something else"),
        ({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}, "computes something else"),
    ],
)
def test_what_the_file_says_beside_its_weights_is_seen(
    case: Case, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(case.folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | change))
    made = case.verified(to_gguf(other, tmp_path / "broken.gguf", coded=case.coded), codes=True)
    assert not made.passed
    assert said in " ".join(made.complaints)


def test_another_template_is_seen(case: Case, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(case.folder, other)
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    made = case.verified(to_gguf(other, tmp_path / "broken.gguf", coded=case.coded), codes=True)
    assert "chat_template" in " ".join(made.complaints)


@pytest.mark.parametrize("size", [0, 3, 100, 0.5, 0.999])
def test_a_file_cut_short_is_seen(case: Case, tmp_path: Path, size: float) -> None:
    data = case.file.read_bytes()
    file = tmp_path / "cut.gguf"
    file.write_bytes(data[: int(size if size > 1 or not size else size * len(data))])
    made = case.verified(file, codes=False)
    assert not made.passed
    assert "no whole GGUF file" in made.complaints[0]


def test_limits_are_the_callers(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "good.gguf"
    shutil.copyfile(case.file, file)
    made = verified(file, case.folder, case.parent, case.texts, limits=Limits(kl_parent=1e-9))
    assert "too far from the parent" in made.complaints[0]
    with pytest.raises(DistillError, match="no texts"):
        verified(file, case.folder, case.parent, [([1], [])])


def test_another_model_of_the_same_shape_is_seen(case: Case, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(case.folder, other)
    weights = load_file(other / "model.safetensors")
    save_file(
        {name: each * 1.5 if "up_proj" in name else each for name, each in weights.items()}, other / "model.safetensors"
    )
    made = case.verified(to_gguf(other, tmp_path / "other.gguf"), codes=False)
    assert "far from the folder's" in made.complaints[0]


@pytest.mark.parametrize("kind", ["qwen3", "granite", "gemma3_text"])
def test_other_architectures_are_verified_too(tmp_path: Path, kind: str) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    sizes |= {"query_pre_attn_scalar": 16} if "gemma" in kind else {}
    folder = write_model(tmp_path / kind, kind, **sizes)
    parent = student.load(folder)
    held = {name: weight.detach() for name, weight in matrices(parent).items()}
    coded = {name: rounded(fit(FORMATS["Q5_1"], each), each) for name, each in held.items()}
    file = to_gguf(folder, tmp_path / "model.gguf", coded=coded)
    ids = np.random.default_rng(0).integers(4, 300, (2, 40)).tolist()
    made = verified(file, folder, parent, [(each[:10], each[10:]) for each in ids], coded=coded)
    assert made.passed, made.complaints
    assert made.figures["kl_parent"] > 0


def test_factors_between_two_matrices_are_no_fault(case: Case, tmp_path: Path) -> None:
    factors = 2.0 ** torch.arange(96).remainder(4)
    held = {name: weight.detach().clone() for name, weight in matrices(case.parent).items()}
    for at in range(2):
        held[f"layers.{at}.mlp.up_proj.weight"] /= factors[:, None]
        held[f"layers.{at}.mlp.down_proj.weight"] *= factors
    coded = {name: rounded(fit(FORMATS["Q8_0"], each), each) for name, each in held.items()}
    file = to_gguf(case.folder, tmp_path / "scaled.gguf", coded=coded)
    made = case.verified(file, codes=False)
    assert made.passed, made.complaints
    held["layers.0.mlp.up_proj.weight"] *= 2
    coded = {name: rounded(fit(FORMATS["Q8_0"], each), each) for name, each in held.items()}
    made = case.verified(to_gguf(case.folder, file, coded=coded), codes=False)
    assert "down_proj.weight is far from the folder's" in made.complaints[0]
