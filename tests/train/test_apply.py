"""A recipe applied to a model: every method, every architecture, and what cannot be done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import KINDS, write_model
from test_calibrate import batches

from conftest import ROOT
from stepwell.distill import student
from stepwell.errors import DistillError
from stepwell.quantize.apply import applied
from stepwell.quantize.calibrate import Tokens, laid, measured
from stepwell.quantize.divergence import Reference
from stepwell.quantize.grids import Coded
from stepwell.quantize.network import matrices, swapped
from stepwell.quantize.recipe import Method, Recipe, Rule, uniform

pytestmark = pytest.mark.timeout(300)

METHODS: tuple[Method, ...] = ("round", "clip", "scale", "gptq", "qat")
SIZES: dict[str, Any] = {"intermediate_size": 64, "num_key_value_heads": 4}


def divergence(model: student.Model, parent: Reference, made: dict[str, Coded]) -> float:
    with swapped(model, {name: each.decoded() for name, each in made.items()}):
        return parent.of(model).kl


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_quantizes_every_architecture(kind: str, tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path / "model", kind, **SIZES))
    before = {name: weight.detach().clone() for name, weight in matrices(model).items()}
    known, parent, told = measured(model, batches(0, 64)), Reference(model, batches(1)), []
    for method in METHODS:
        made = applied(model, uniform("Q8_0", method), [], calibration=known, watch=told.append)
        assert told == list(before) == list(made)
        assert {name: each.decoded().shape for name, each in made.items()} == {
            name: weight.shape for name, weight in before.items()
        }
        assert divergence(model, parent, made) < 0.002
        told.clear()
    assert all(torch.equal(weight, before[name]) for name, weight in matrices(model).items())


def test_rules_choose_and_plain_weights_are_left_out(tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path / "model", **SIZES))
    recipe = Recipe(Rule("Q4_0", "round"), (Rule("F16", "round", "lm_head*"), Rule("Q8_0", "gptq", "layers.0.*")))
    made = applied(model, recipe, batches())
    assert "lm_head.weight" not in made
    assert {each.format.name for name, each in made.items() if name.startswith("layers.0.")} == {"Q8_0"}
    assert made["embed_tokens.weight"].format.name == made["layers.1.mlp.up_proj.weight"].format.name == "Q4_0"


def test_blind_methods_need_no_texts_and_the_others_do(tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path / "model", **SIZES))
    assert applied(model, uniform("Q4_0", "round"), [])
    with pytest.raises(DistillError, match="no calibration texts"):
        applied(model, uniform("Q4_0", "gptq"), [])


def test_what_is_read_can_be_measured_again_on_the_way(tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path / "model", **SIZES))
    before = {name: weight.detach().clone() for name, weight in matrices(model).items()}
    once, again = (applied(model, uniform("Q4_0"), batches(), again=num) for num in (0, 2))
    assert list(once) == list(again) == list(before)
    first, last = "embed_tokens.weight", "layers.1.mlp.down_proj.weight"
    assert torch.equal(once[first].codes, again[first].codes)
    assert not torch.equal(once[last].codes, again[last].codes)
    assert all(torch.equal(weight, before[name]) for name, weight in matrices(model).items())


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path / "model"))
    with pytest.raises(DistillError, match=r"down_proj.weight is 48 wide, and Q4_0 takes 32"):
        applied(model, uniform("Q4_0", "round"), [])
    with pytest.raises(DistillError, match="no format 'Q9'"):
        applied(model, uniform("Q9", "round"), [])
    with torch.no_grad():
        matrices(model)["layers.1.self_attn.q_proj.weight"][3, 4] = float("nan")
    with pytest.raises(DistillError, match=r"layers.1.self_attn.q_proj.weight holds NaN or infinite"):
        applied(model, uniform("int8", "round"), [])


def test_scaling_changes_nothing_but_what_rounding_loses(tmp_path: Path) -> None:
    """The product with the gate hides what up_proj and down_proj agree on."""
    model = student.load(write_model(tmp_path / "model", **SIZES))
    with torch.no_grad():  # inputs of down_proj that differ in size, as trained models' do
        matrices(model)["layers.0.mlp.up_proj.weight"].mul_(torch.logspace(-1, 1, 64)[:, None])
    known, parent = measured(model, batches(0, 64)), Reference(model, batches(1, 64))
    body = Rule("F16", "round")
    scale, clip = (
        applied(model, Recipe(body, (Rule("Q4_0", method, "layers.0.mlp.*"),)), [], calibration=known)
        for method in ("scale", "clip")
    )
    up, before = scale["layers.0.mlp.up_proj.weight"].decoded(), matrices(model)["layers.0.mlp.up_proj.weight"].detach()
    assert (up.norm(dim=1) / before.norm(dim=1)).std() > 0.05
    assert divergence(model, parent, scale) < divergence(model, parent, clip)


def texts(model: student.Model, part: str, num: int) -> list[Tokens]:
    from recipes.writer import data  # noqa: PLC0415 - needs the data set

    pairs = [(mr, refs[0]) for mr, refs in data.read(part).items()][:num]
    return laid([(model.prompt_ids(mr), model.text_ids(data.tidy(text))) for mr, text in pairs], pad=model.words.pad)


@pytest.mark.skipif(not os.environ.get("STEPWELL_DATA"), reason="STEPWELL_DATA must name a folder with e2e/")
def test_the_house_writer_stays_nearer_its_parent_at_the_same_bytes() -> None:
    model = student.load(ROOT / "models" / "house-writer")
    known, parent = measured(model, texts(model, "train", 96)), Reference(model, texts(model, "dev", 48))
    plain, ours = (
        divergence(model, parent, applied(model, uniform("Q4_0", method), [], calibration=known))
        for method in ("round", "gptq")
    )
    assert ours < 0.6 * plain
