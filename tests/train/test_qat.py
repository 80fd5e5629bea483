"""Quantization while a model learns: gradients, codes, kills, recipes, and a file that says what was learned."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import curve, plan, rows, words

from stepwell.campaigns import quantize_train, specialist_quantize
from stepwell.campaigns.learning import Quantized
from stepwell.campaigns.quantize_task import Row, Task, tokens
from stepwell.campaigns.specialist_file import load
from stepwell.cli.main import main
from stepwell.distill import student, train
from stepwell.distill.measure import mean_loss
from stepwell.distill.plan import StudentSection
from stepwell.errors import ConfigError, DistillError
from stepwell.quantize import engine, fake
from stepwell.quantize.apply import applied
from stepwell.quantize.divergence import Reference
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.grids import Coded
from stepwell.quantize.network import matrices, swapped
from stepwell.quantize.recipe import Recipe, Rule, uniform
from stepwell.store import tables

pytestmark = pytest.mark.timeout(300)

WIDE = StudentSection(hidden=256, layers=1, heads=2, kv_heads=1, inner=256, context=128)
"""Rows of 256: every format fits."""


def new(folder: Path) -> student.Model:
    return student.create(WIDE, words(folder), 0)


def transform(model: student.Model, recipe: Recipe) -> fake.Fake:
    return fake.fake(recipe, fake.shapes_of(model))


def learned(tmp_path: Path, recipe: Recipe, out: str = "run", **given: Any) -> train.Trained:
    model = new(tmp_path / "words")
    settings = {"steps": 6, "save_every": 2, **given.pop("settings", {})}
    return train.train(plan(**settings), model, rows(), tmp_path / out, transform=transform(model, recipe), **given)


# --- one weight


@pytest.mark.parametrize("name", [each.name for each in FORMATS.values()])
def test_gradients_go_straight_through_but_for_what_is_clipped(name: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 256)
    weight[0, 5] = 40.0  # alone so far out, it widens its group's steps or is cut off: in no case anybody else's matter
    leaf = weight.clone().requires_grad_()
    made = fake.Fake({"w": FORMATS[name]})("model.w", leaf)
    coded = fake.on_grid(FORMATS[name], weight)
    assert torch.equal(made, coded.decoded())
    gradient = torch.randn_like(weight)
    made.backward(gradient)
    assert leaf.grad is not None
    through = leaf.grad == gradient
    assert torch.equal(leaf.grad[~through], torch.zeros_like(leaf.grad[~through]))
    assert through.float().mean() > 0.99
    step = coded.grid.wide(coded.grid.step, 256).abs()
    assert ((weight - made).abs()[~through] > step[~through]).all()


def test_other_weights_stay_as_they_are() -> None:
    weight = torch.randn(4)
    assert fake.Fake({"w": FORMATS["Q2_K"]})("norm.weight", weight) is weight


# --- a run


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_what_is_exported_are_the_codes_that_were_measured(tmp_path: Path, average: float) -> None:
    recipe = Recipe(Rule("Q2_K", "qat"), (Rule("Q4_0", "qat", match="embed_tokens.weight"),))
    seen: dict[str, torch.Tensor] = {}

    def dev(model: student.Model) -> dict[str, float]:
        seen.update({name: weight.detach().clone() for name, weight in matrices(model).items()})
        return {"loss": mean_loss(model, rows()[:6])}

    done = learned(tmp_path, recipe, dev=dev, settings={"average": average, "measure_every": 6})
    codes = fake.coded(student.load(done.folder), recipe)
    assert codes["embed_tokens.weight"].format.name == "Q4_0"
    assert set(codes) == set(seen)
    for name, weight in seen.items():
        assert torch.equal(codes[name].decoded(), weight), name
        assert torch.equal(codes[name].codes, fake.on_grid(codes[name].format, student_weight(done.folder, name)).codes)


def student_weight(folder: Path, name: str) -> torch.Tensor:
    return matrices(student.load(folder))[name].detach()


def test_late_means_late(tmp_path: Path) -> None:
    train.train(plan(steps=6), new(tmp_path / "words"), rows(), tmp_path / "plain")
    learned(tmp_path, uniform("Q2_K"), "late", transform_from=4)
    learned(tmp_path, uniform("Q2_K"), "start")
    plain, late, start = ([loss for _, loss in curve(tmp_path / name)] for name in ("plain", "late", "start"))
    assert late[:4] == pytest.approx(plain[:4], rel=1e-5)
    assert late[4] != pytest.approx(plain[4], rel=1e-4)
    assert start[0] != pytest.approx(plain[0], rel=1e-4)


@pytest.mark.parametrize("first", [0, 5])
def test_cut_short_it_goes_on_with_the_same_numbers(tmp_path: Path, first: int) -> None:
    class Cut(Exception):  # noqa: N818 - no error
        pass

    def cut(told: train.Told) -> None:
        if told.step == 5:
            raise Cut

    whole = learned(tmp_path, uniform("Q2_K"), "whole", transform_from=first)
    with pytest.raises(Cut):
        learned(tmp_path, uniform("Q2_K"), "cut", transform_from=first, watch=cut)
    again = learned(tmp_path, uniform("Q2_K"), "cut", transform_from=first)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    one, other = (fake.coded(student.load(done.folder), uniform("Q2_K")) for done in (whole, again))
    assert all(torch.equal(one[name].codes, other[name].codes) for name in one)


def test_a_run_of_other_formats_is_not_gone_on_with(tmp_path: Path) -> None:
    learned(tmp_path, uniform("Q2_K"))
    for recipe, first in ((uniform("Q3_K"), 0), (uniform("Q2_K"), 2)):
        with pytest.raises(DistillError, match="another plan"):
            learned(tmp_path, recipe, transform_from=first)


# --- a model that is there


def parent_and_task(tmp_path: Path) -> tuple[Path, Task]:
    parent = train.train(plan(steps=40), new(tmp_path / "words"), rows(), tmp_path / "parent").folder
    parts = [tuple(Row(each.prompt, each.completion) for each in rows()[at::3]) for at in range(3)]
    return parent, Task("places", "exact", 24, *parts)


@pytest.mark.parametrize("start", ["own", "gptq"])
def test_training_keeps_what_is_nearer_than_gptq(tmp_path: Path, start: quantize_train.Start) -> None:
    parent, task = parent_and_task(tmp_path)
    recipe, out = uniform("Q2_K"), tmp_path / "out"
    codes = quantize_train.trained(parent, recipe, task, out, 900.0, rates=(2e-3, 1e-9), most_steps=24, start=start)
    gptq, quick, still = json.loads((out / "trained.json").read_text())
    assert gptq["rate"] == 0
    assert quick["kl"] < still["kl"]
    if start == "gptq":
        assert quick["kl"] < gptq["kl"]
        assert still["kl"] < 1.5 * gptq["kl"]
    model = student.load(parent)
    reference = Reference(student.load(parent), tokens(model, task.search))
    with swapped(model, {name: each.decoded() for name, each in codes.items()}):
        least = min(gptq["kl"], quick["kl"])
        assert reference.of(model).kl == pytest.approx(least, rel=1e-3)  # all but the codes is the parent's
    steps = len(curve(out / "rate-0.002"))
    again = quantize_train.trained(parent, recipe, task, out, 900.0, rates=(2e-3, 1e-9), most_steps=24, start=start)
    assert len(curve(out / "rate-0.002")) == steps
    assert all(torch.equal(again[name].codes, each.codes) for name, each in codes.items())


def test_without_time_the_gptq_weights_stay(tmp_path: Path) -> None:
    parent, task = parent_and_task(tmp_path)
    codes = quantize_train.trained(parent, uniform("Q3_K"), task, tmp_path / "out", 0.1)
    model = student.load(parent)
    wanted = applied(model, uniform("Q3_K"), tokens(model, task.calibration))
    assert all(torch.equal(codes[name].codes, each.codes) for name, each in wanted.items())


# --- a recipe

STUDENT = (
    "[train]\ndata = 'rows.jsonl'\nsteps = 100\n[student]\nhidden = 128\nheads = 2\ninner = 256\ntokenizer = 'words'\n"
)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[quantize]\nformat = 'Q9_9'\n", r"small.toml:10.*no format 'Q9_9'"),
        ("[quantize]\nformat = 'int8'\n", r"small.toml:10.*no format 'int8' of GGUF"),
        ("[quantize]\nformat = 'Q2_K'\n", r"small.toml:10.*128 wide.*Q2_K takes 256.*Q4_0"),
        ("[export]\nquantize = 'Q2_K'\n", r"small.toml:10.*128 wide"),
        ("[export]\nquantize = 'Q8'\n", r"small.toml:10.*no format 'Q8'"),
        ("[quantize]\nformat = 'Q4_0'\nwhen = 'soon'\n", r"small.toml:11.*'soon'"),
        ("[quantize]\nformat = 'Q4_0'\nlate_share = 1.5\n", r"small.toml:11"),
        ("[quantize]\nformat = 'Q4_0'\nwhenn = 'late'\n", r"small.toml:11.*did you mean 'when'"),
        ("[quantize]\nwhen = 'late'\n", r"small.toml:9.*name a format, or a recipe"),
        ("[quantize]\nrecipe = 'none.json'\n", r"small.toml:10.*is no recipe"),
        ("[quantize]\nformat = 'Q4_0'\n[[quantize.rules]]\nmatch = 'embed*'\nformat = 'Q6_K'\n", r"Q6_K takes 256"),
        ("[quantize]\nformat = 'Q4_0'\n[[quantize.rules]]\nformat = 'Q7'\n", r"small.toml:12.*no format 'Q7'"),
        ("[quantize]\nformat = 'Q4_0'\n[export]\nquantize = 'Q8_0'\n", r"small.toml:12.*take this out"),
    ],
)
def test_what_does_not_fit_is_told_with_its_line_before_anything_is_trained(
    tmp_path: Path, more: str, told: str
) -> None:
    words(tmp_path / "words")
    (tmp_path / "small.toml").write_text(STUDENT + more)
    with pytest.raises(ConfigError, match=told):
        specialist_quantize.check(load(tmp_path / "small.toml"))


def test_adapters_do_not_learn_quantized(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(f"{STUDENT}lora = 4\n[quantize]\nformat = 'Q4_0'\nwhen = 'late'\n")
    with pytest.raises(ConfigError, match=r"small.toml:12.*adapters"):
        load(tmp_path / "small.toml")


def test_the_command_trains_quantized_but_not_by_trl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = campaign_file(tmp_path, '[quantize]\nformat = "Q2_K"\nwhen = "late"\nlate_share = 0.5\n')
    arguments = ["distill", "train", str(recipe), "--out", str(tmp_path / "run"), "--threads", "1", "--json"]
    assert main(arguments) == 0
    held = matrices(student.load(tmp_path / "run" / "student"))["layers.0.mlp.up_proj.weight"].detach()
    assert not torch.equal(held, fake.on_grid(FORMATS["Q2_K"], held).decoded())  # the weights stay whole
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == 40
    if importlib.util.find_spec("trl") is None:
        return
    assert main([*arguments, "--backend", "trl"]) == 2
    assert "quantize.when" in capsys.readouterr().err


def test_what_a_recipe_says_is_what_is_learned(tmp_path: Path) -> None:
    def said(more: str) -> Quantized | None:
        (tmp_path / "small.toml").write_text(STUDENT + more)
        return specialist_quantize.learned_with(load(tmp_path / "small.toml"))

    assert said("") is None
    assert said("[export]\nquantize = ''\n") is None
    assert said("[quantize]\nformat = 'Q4_0'\n") is None
    late = said("[quantize]\nformat = 'Q4_0'\nwhen = 'late'\nlate_share = 0.3\n")
    assert late == Quantized(uniform("Q4_0"), 70)
    start = said("[quantize]\nformat = 'Q4_0'\nwhen = 'start'\n[[quantize.rules]]\nmatch = 'embed*'\nformat = 'Q8_0'\n")
    assert start is not None
    assert start.first_step == 0
    assert start.recipe.rule("embed_tokens.weight").format == "Q8_0"


# --- a campaign

CAMPAIGN = """
[train]
data = "rows.jsonl"
steps = 40
rate = 5e-3
batch_tokens = 400
save_every = 20
average = 0.9
[split]
dev = 0.2
[student]
hidden = 256
layers = 1
heads = 2
kv_heads = 1
inner = 256
context = 128
tokenizer = "words"
"""


def campaign_file(folder: Path, more: str) -> Path:
    """A recipe and its rows."""
    folder.mkdir(exist_ok=True)
    words(folder / "words")
    tables.write(folder / "rows.jsonl", [{"prompt": row.prompt, "completion": row.completion} for row in rows()])
    recipe = folder / "small.toml"
    recipe.write_text(CAMPAIGN + more)
    return recipe


def campaign(folder: Path, more: str, processes: int = 1) -> Path:
    """The student's folder."""
    recipe = campaign_file(folder, more)
    command = [sys.executable, "-m", "stepwell.cli", "distill", "run", str(recipe), "--root", str(folder / "root")]
    ran = subprocess.run(
        [*command, "--processes", str(processes), "--json"], capture_output=True, check=False, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["training"]["processes"] == processes
    return folder / "root" / "student"


def apart(folder: Path, codes: dict[str, Coded] | None, file: Path) -> float:
    """KL of the file in the engine from a model in torch with these codes."""
    model = student.load(folder)
    texts = [(model.prompt_ids(row.prompt), model.text_ids(row.completion)) for row in rows()[:8]]
    told = engine.distributions(file, texts)
    said = []
    with swapped(model, {name: each.decoded() for name, each in (codes or {}).items()}), torch.no_grad():
        for prompt, text in texts:
            hidden = model.hidden(torch.tensor([[*prompt, *text]]))[0, len(prompt) - 1 : -1]
            said.append(torch.log_softmax(model.logits(hidden), -1).numpy())
    own = np.concatenate(said)
    return float((np.exp(own) * (own - told)).sum(-1).mean())


@pytest.mark.parametrize("processes", [1, 2])
def test_distillation_and_quantization_are_one_run(tmp_path: Path, processes: int) -> None:
    folder = campaign(tmp_path, '[quantize]\nformat = "Q2_K"\nwhen = "start"\n', processes)
    file = folder / "small.Q2_K.gguf"
    codes = fake.coded(student.load(folder), uniform("Q2_K"))
    assert apart(folder, codes, file) < 1e-3  # the engine rounds activations to 8 bits
    assert apart(folder, None, file) > 10 * apart(folder, codes, file)
    assert "| **from the start** |" in (folder / "README.md").read_text()


def test_the_card_compares_the_ways(tmp_path: Path) -> None:
    folder = campaign(tmp_path, '[quantize]\nformat = "Q2_K"\nwhen = "late"\ncompare = true\n')
    card = (folder / "README.md").read_text()
    for way in ("32 bits", "rounded", "after (GPTQ)", "**late**", "from the start"):
        assert f"| {way} |" in card
    assert (folder / "phases.svg").read_text().count("<circle") == 5
    (kept,) = (folder.parent).resolve().glob("*-compare-*/phases.json")
    told = {each["way"]: each for each in json.loads(kept.read_text())}
    assert told["none"]["loss"] < told["round"]["loss"]
    assert [each["own"] for each in told.values()] == [False, False, False, True, False]
    assert min(each["cpu_s"] for each in told.values()) > 0


def test_a_format_alone_is_found_after_training(tmp_path: Path) -> None:
    folder = campaign(tmp_path, '[export]\nquantize = "Q2_K"\n')
    half = campaign(tmp_path / "half", '[export]\nquantize = "F16"\n')
    small, large = folder / "small.Q2_K.gguf", half / "small.F16.gguf"
    assert small.stat().st_size < large.stat().st_size / 3
