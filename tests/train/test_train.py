"""A student learns, whichever the lesson; stopped in any way it goes on exactly there; what is wrong is told."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import KINDS, write_model, write_words
from runs import curve, new, plan, rows, run, words
from safetensors.torch import load_file

from stepwell.cli.main import main
from stepwell.distill import sparse, student, train
from stepwell.distill.data import Example
from stepwell.distill.generate import generate
from stepwell.distill.measure import mean_loss
from stepwell.distill.plan import StudentSection
from stepwell.errors import ConfigError, DistillError
from stepwell.store import tables

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def process(out: Path, told: dict[str, Any], **environment: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    surroundings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, str(HERE / "runs.py"), str(out), json.dumps(told)], env=surroundings)


# --- it learns


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_and_says_it(tmp_path: Path, precision: str) -> None:
    told: list[train.Told] = []
    done = train.train(
        plan(steps=100, precision=precision, average=0.8), new(tmp_path / "words"), rows(), tmp_path / "run",
        watch=told.append,
    )  # fmt: skip
    assert told[-1].loss < told[0].loss / 6
    assert [each.step for each in told] == list(range(1, 101))
    model = student.load(done.folder)
    said = generate(model, ["name[Place 1], food[Indian]"])[0][0]
    assert "food" in said
    assert "Place 1" in said
    made = json.loads((done.folder / "provenance.json").read_text())
    assert (made["step"], made["plan"]["seed"]) == (100, 0)
    assert done.tokens == sum(each.tokens for each in told)
    assert "polyline" in {part.tag.rpartition("}")[2] for part in ET.parse(tmp_path / "run" / "loss.svg").iter()}  # noqa: S314


@pytest.mark.parametrize("kind", KINDS)
def test_any_architecture_learns_in_bfloat16_with_recomputation(tmp_path: Path, kind: str) -> None:
    model = student.load(write_model(tmp_path / "model", kind))
    told: list[train.Told] = []
    settings = plan(steps=25, precision="bf16", recompute=True, rate=1e-2)
    done = train.train(settings, model, rows(12), tmp_path / "run", watch=told.append)
    assert told[-1].loss < told[0].loss * 0.8
    again = student.load(done.folder)
    assert type(again.module) is type(model.module)
    assert mean_loss(again, rows(12)) < told[0].loss * 0.9


@pytest.mark.parametrize(("kind", "precision"), [("llama", "bf16"), ("qwen3", "fp32")])
def test_adapters_learn_beside_weights_that_stay(tmp_path: Path, kind: str, precision: str) -> None:
    folder = write_model(tmp_path / "model", kind)
    model = student.create(StudentSection(folder=str(folder), lora=4), folder)
    before = mean_loss(model, rows(12))
    trained = train.train(plan(steps=40, rate=2e-2, average=0, precision=precision), model, rows(12), tmp_path / "run")
    assert mean_loss(model, rows(12)) < before * 0.9
    old, merged = load_file(folder / "model.safetensors"), load_file(trained.folder / "model.safetensors")
    assert set(merged) == set(old)
    changed = {name for name in old if not torch.equal(old[name], merged[name])}
    assert changed == {name for name in old if "proj" in name}
    assert mean_loss(student.load(trained.folder), rows(12)) == pytest.approx(mean_loss(model, rows(12)), rel=1e-4)
    pairs = load_file(trained.folder / "adapter" / "adapter_model.safetensors")
    said = json.loads((trained.folder / "adapter" / "adapter_config.json").read_text())
    name = "model.layers.0.self_attn.q_proj"
    up, down = (pairs[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA")
    whole = old[f"{name}.weight"] + said["lora_alpha"] / said["r"] * up @ down
    torch.testing.assert_close(whole, merged[f"{name}.weight"])


# --- from a teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> student.Model:
    """One that has learned."""
    folder = tmp_path_factory.mktemp("teacher")
    done = train.train(plan(steps=120, average=0.8), new(folder / "words", seed=3), rows(), folder / "run")
    return student.load(done.folder)


@pytest.mark.parametrize("loss", ["fkl", "rkl", "jsd:0.5", "skew:0.1"])
def test_a_student_comes_near_its_teacher(tmp_path: Path, teacher: student.Model, loss: str) -> None:
    told: list[train.Told] = []
    settings = plan(steps=60, loss=loss, alpha=1.0)
    train.train(settings, new(tmp_path / "words"), rows(), tmp_path / "run", teacher=teacher, watch=told.append)
    assert told[-1].loss < told[0].loss * 0.7


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_on_its_own_prefixes_it_comes_near_the_teacher(tmp_path: Path, teacher: student.Model, share: float) -> None:
    model, told = new(tmp_path / "words"), list[train.Told]()
    train.train(plan(steps=30), model, rows(), tmp_path / "before")  # it must speak a little to learn from itself
    settings = plan(steps=50, loss="rkl", alpha=1.0, on_policy=share, max_tokens=24)
    train.train(settings, model, rows(), tmp_path / "run", teacher=teacher, watch=told.append)
    assert np.mean([each.loss for each in told[-10:]]) < np.mean([each.loss for each in told[:5]]) / 2


def test_all_probabilities_stored_teach_as_the_teacher_does(tmp_path: Path) -> None:
    teacher = student.load(write_model(tmp_path / "teacher", "llama"))
    size = teacher.module.shape.vocabulary
    examples = rows(12)
    found = {}
    for name in ("fkl", "topk+rest"):
        model = student.create(StudentSection(hidden=32, layers=1, heads=2, inner=32), tmp_path / "teacher", seed=1)
        store = None
        if name == "topk+rest":
            sparse.write(
                tmp_path / "all.sparse",
                [(row.id, everything(teacher, row)) for row in examples],
                tokenizer_hash=teacher.tokenizer_hash,
                vocabulary=size,
            )
            store = sparse.SparseRows.open(tmp_path / "all.sparse", model.tokenizer_hash)
        train.train(
            plan(loss=name), model, examples, tmp_path / name, teacher=teacher if name == "fkl" else None, sparse=store
        )
        found[name] = [loss for _, loss in curve(tmp_path / name)]
    assert found["topk+rest"] == pytest.approx(found["fkl"], rel=0.02)


def everything(teacher: student.Model, row: Example) -> sparse.TopK:
    prompt, text = teacher.prompt_ids(row.prompt), teacher.text_ids(row.completion)
    with torch.no_grad():
        hidden = teacher.hidden(torch.tensor([prompt + text[:-1]]))[0, len(prompt) - 1 :]
        logp = torch.log_softmax(teacher.logits(hidden), -1).numpy()
    return sparse.top(np.array(text), logp, cover=1.0, most=255)


def test_rows_without_stored_probabilities_are_learned_by_their_texts(tmp_path: Path) -> None:
    model, other = new(tmp_path / "words"), new(tmp_path / "words")
    held = [(row.id, everything(other, row)) for row in rows()[:4]]
    sparse.write(tmp_path / "few.sparse", held, tokenizer_hash=model.tokenizer_hash, vocabulary=400)
    store = sparse.SparseRows.open(tmp_path / "few.sparse", model.tokenizer_hash)
    train.train(plan(loss="sampled", steps=60), model, rows(), tmp_path / "run", sparse=store)
    losses = [loss for _, loss in curve(tmp_path / "run")]
    assert losses[-1] < losses[0] / 3


def test_stored_probabilities_of_another_text_are_refused(tmp_path: Path) -> None:
    model = new(tmp_path / "words")
    held = [(row.id, everything(model, row._replace(completion="Another text."))) for row in rows()]
    sparse.write(tmp_path / "rows.sparse", held, tokenizer_hash=model.tokenizer_hash, vocabulary=400)
    store = sparse.SparseRows.open(tmp_path / "rows.sparse", model.tokenizer_hash)
    with pytest.raises(DistillError, match=r"are of another text; let it label anew"):
        train.train(plan(loss="topk+rest"), model, rows(), tmp_path / "run", sparse=store)


def test_another_tokenizer_is_refused_or_only_its_texts_are_used(tmp_path: Path) -> None:
    teacher = student.create(StudentSection(hidden=32, layers=1, heads=2, inner=32), write_words(tmp_path / "a", 280))
    model = new(tmp_path / "words")
    with pytest.raises(DistillError, match=r"different tokenizers: .* fallback = \"text\""):
        train.train(plan(loss="fkl"), model, rows(), tmp_path / "run", teacher=teacher)
    settings = plan(loss="fkl", fallback="text", steps=60, max_tokens=8)
    train.train(settings, model, rows(), tmp_path / "texts", teacher=teacher)
    prompt = rows()[0].prompt
    expected = generate(teacher, [prompt], max_tokens=8)[0][0]
    (written,) = (tmp_path / "texts").glob("texts-*.jsonl")
    kept = dict(json.loads(line) for line in written.read_text().splitlines())
    assert kept[prompt] == [expected]
    losses = [loss for _, loss in curve(tmp_path / "texts")]
    assert losses[-1] < losses[0] / 2


def test_a_teacher_with_another_chat_template_reads_its_own_prompts(tmp_path: Path) -> None:
    model = new(tmp_path / "words")
    teacher = new(tmp_path / "words")  # equal weights and tokens: only the template differs
    words(tmp_path / "other")
    said = json.loads((tmp_path / "other" / "tokenizer_config.json").read_text())
    said["chat_template"] = said["chat_template"].replace("<sep>", "<sep><sep>")
    (tmp_path / "other" / "tokenizer_config.json").write_text(json.dumps(said))
    teacher.words = student.create(StudentSection(), tmp_path / "other").words
    train.train(plan(loss="fkl", alpha=1.0, steps=1), model, rows(), tmp_path / "run", teacher=teacher)
    assert curve(tmp_path / "run")[0][1] > 1e-6
    train.train(plan(loss="fkl", alpha=1.0, steps=1), new(tmp_path / "words"), rows(), tmp_path / "same",
                teacher=new(tmp_path / "words"))  # fmt: skip
    assert abs(curve(tmp_path / "same")[0][1]) < 1e-6


def test_teacher_and_student_may_be_of_different_architectures(tmp_path: Path) -> None:
    teacher = student.load(write_model(tmp_path / "teacher", "gemma2"))
    model = student.create(StudentSection(hidden=32, layers=1, heads=2, inner=32), tmp_path / "teacher")
    values = []
    for row in rows(6):
        prompt, text = model.prompt_ids(row.prompt), model.text_ids(row.completion)
        with torch.no_grad():
            p, q = (
                torch.log_softmax(one.logits(one.hidden(torch.tensor([prompt + text[:-1]]))[0, len(prompt) - 1 :]), -1)
                for one in (teacher, model)
            )
        values.append((p.exp() * (p - q)).sum(-1))
    settings = plan(loss="fkl", alpha=1.0, batch_tokens=4_000, steps=3, on_policy=0.0)
    train.train(settings, model, rows(6), tmp_path / "run", teacher=teacher)
    assert curve(tmp_path / "run")[0][1] == pytest.approx(torch.cat(values).mean().item(), rel=1e-4)


def test_a_student_of_transformers_learns_from_its_own_texts(tmp_path: Path) -> None:
    teacher = student.load(write_model(tmp_path / "teacher", "llama"))
    model = student.load(write_model(tmp_path / "student", "qwen3", seed=1))
    told: list[train.Told] = []
    settings = plan(loss="jsd:0.5", on_policy=1.0, max_tokens=8, steps=20, rate=1e-2)
    train.train(settings, model, rows(6), tmp_path / "run", teacher=teacher, watch=told.append)
    assert np.mean([each.loss for each in told[-5:]]) < 0.9 * told[0].loss


# --- stopped, killed, side by side


MIXED = {"dropout": 0.2, "loss": "rkl", "on_policy": 0.5, "max_tokens": 12}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> train.Trained:
    """A run that nobody disturbed."""
    return run(tmp_path_factory.mktemp("whole") / "run", MIXED)


@pytest.mark.parametrize("die_at", ["step:7", "write:2", "sync:3"])
def test_killed_anywhere_the_loss_curve_is_the_same(tmp_path: Path, whole: train.Trained, die_at: str) -> None:
    killed = process(tmp_path / "cut", {"plan": MIXED, "die_at": die_at})
    assert killed.wait() == -signal.SIGKILL
    assert len(curve(tmp_path / "cut")) < 12
    cut = run(tmp_path / "cut", MIXED)
    assert curve(tmp_path / "cut") == curve(whole.log.parent)
    assert len(curve(whole.log.parent)) == 12
    assert cut.scores == whole.scores
    assert (
        cut.folder.joinpath("model.safetensors").read_bytes() == whole.folder.joinpath("model.safetensors").read_bytes()
    )


def test_killed_from_outside_at_any_time(tmp_path: Path) -> None:
    chance = random.Random(0)
    settings = {"steps": 40, "save_every": 3}
    for _ in range(2):
        going = process(tmp_path / "cut", {"plan": settings})
        log, seen = tmp_path / "cut" / "log.jsonl", 0
        seen = len(log.read_bytes().splitlines()) if log.exists() else 0
        while going.poll() is None and (
            not log.exists() or len(log.read_bytes().splitlines()) < seen + chance.randint(2, 9)
        ):
            time.sleep(0.01)
        going.kill()
        going.wait()
    run(tmp_path / "cut", settings)
    run(tmp_path / "whole", settings)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_a_run_that_is_done_is_not_done_again_and_may_go_on_longer(tmp_path: Path) -> None:
    first = run(tmp_path / "run", {"steps": 8})
    assert run(tmp_path / "run", {"steps": 8}) == first
    assert [step for step, _ in curve(tmp_path / "run")] == list(range(1, 9))
    assert run(tmp_path / "run", {"steps": 12}).steps == 12
    assert [step for step, _ in curve(tmp_path / "run")] == list(range(1, 13))


def test_what_nobody_measures_ends_with_its_last_weights(tmp_path: Path) -> None:
    found = []
    for steps in (4, 8):
        done = train.train(plan(steps=steps), new(tmp_path / "words"), rows(), tmp_path / "run")
        assert json.loads((done.folder / "provenance.json").read_text())["step"] == steps
        found.append(load_file(done.folder / "model.safetensors")["model.embed_tokens.weight"])
    assert not torch.equal(*found)


def test_another_plan_does_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    run(tmp_path / "run", {"steps": 4})
    with pytest.raises(DistillError, match="holds a run of another plan, student or data"):
        run(tmp_path / "run", {"steps": 4, "rate": 1e-3})


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    run(tmp_path / "run", {"steps": 4})
    file = tmp_path / "run" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DistillError, match=r"is damaged: .* delete it to begin anew"):
        run(tmp_path / "run", {"steps": 8})


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [process(tmp_path / "two", {"plan": {}}, RANK=str(rank), **shared) for rank in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    one = run(tmp_path / "one", {})
    losses = [loss for _, loss in curve(tmp_path / "two")]
    assert losses == pytest.approx([loss for _, loss in curve(tmp_path / "one")], rel=1e-5)
    ours, theirs = load_file(one.folder / "model.safetensors"), load_file(tmp_path / "two/student/model.safetensors")
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, atol=1e-5, rtol=1e-3)


def test_it_stops_where_nothing_gets_better(tmp_path: Path) -> None:
    scores = iter([3.0, 5.0, 4.0, 4.5, 9.0])
    settings = plan(steps=100, measure_every=2, patience=2, metric="bleu")
    done = train.train(
        settings, new(tmp_path / "words"), rows(), tmp_path / "run", dev=lambda _: {"bleu": next(scores)}
    )
    assert (done.stopped, done.steps, done.scores) == ("patience", 8, {"bleu": 5.0})
    assert json.loads((done.folder / "provenance.json").read_text())["step"] == 4
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-4"]


def test_a_metric_that_is_not_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=r"'bleu' is not measured on the dev set; there are: loss"):
        train.train(plan(metric="bleu"), new(tmp_path / "words"), rows(), tmp_path / "run", dev=lambda _: {"loss": 1.0})


# --- what is wrong


def test_no_number_stops_keeps_the_last_checkpoint_and_names_the_batch(tmp_path: Path) -> None:
    poisoned = [*rows()[:8], Example("name[Bad], food[None]", "Bad.", float("inf"), "the bad row")]
    model = new(tmp_path / "words")

    def epoch(number: int) -> list[Example]:
        return rows()[:8] if number < 6 else poisoned

    with pytest.raises(
        DistillError, match=r"the loss is nan at step \d+ .*the bad row.*last good checkpoint is .*rate"
    ):
        train.train(plan(steps=100, save_every=2), model, epoch, tmp_path / "run")
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert "the bad row" in last["stopped"]
    kept = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in kept.values())
    healed = train.train(plan(steps=20, save_every=2), model, lambda _: rows()[:8], tmp_path / "run")
    assert healed.steps == 20


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "fkl"}, "needs a teacher whose weights are here"),
        ({"loss": "topk+rest"}, "needs the teacher's stored probabilities"),
        ({"on_policy": 0.5}, "`on_policy` needs a teacher"),
    ],
)
def test_a_teacher_that_is_missing_is_told(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(DistillError, match=told):
        train.train(plan(**settings), new(tmp_path / "words"), rows(), tmp_path / "run")


def test_a_row_that_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=r"the weight 0 is not above 0: 'name"):
        train.train(plan(), new(tmp_path / "words"), [Example("name[Light]", "x", 0)], tmp_path / "run")
    long = [*rows(), Example("name[Long]", "word " * 200)]
    with pytest.raises(DistillError, match=r"tokens do not fit the model's 128: 'name\[Long\]'; drop the row"):
        train.train(plan(), new(tmp_path / "words"), long, tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "kl"}, "unknown loss 'kl'; known: ce, seq, fkl"),
        ({"loss": "jsd:2"}, "must lie between 0 and 1"),
        ({"loss": "jsd:x"}, "must lie between 0 and 1"),
        ({"loss": "ce:0.5"}, "unknown loss"),
        ({"steps": 0}, "train.steps: must be at least 1"),
        ({"alpha": 1.5}, "train.alpha: must lie between 0 and 1"),
        ({"average": 1.0}, "train.average: must be at least 0 and below 1"),
        ({"rate": 0.0}, "must be above 0"),
    ],
)
def test_a_wrong_plan_is_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan(**settings)


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_part_missing_or_damaged_is_told(tmp_path: Path, part: str) -> None:
    folder = write_model(tmp_path, "llama")
    (folder / part).write_bytes((folder / part).read_bytes()[:-50])
    with pytest.raises(DistillError, match=r"cannot be read|can be read"):
        student.load(folder)
    (folder / part).unlink()
    with pytest.raises(DistillError, match=r"no model|no weights|no tokenizer"):
        student.load(folder)


# --- quantization-aware training


def test_weights_may_be_computed_with_in_another_form(tmp_path: Path) -> None:
    def rounded(_: str, weight: torch.Tensor) -> torch.Tensor:
        step = weight.detach().abs().max() / 7
        return weight + ((weight / step).round() * step - weight).detach()  # straight through

    for name, transform in (("none", None), ("same", lambda _, weight: weight * 1), ("rounded", rounded)):
        train.train(plan(steps=60), new(tmp_path / "words"), rows(), tmp_path / name, transform=transform)
    plain, same, coarse = (curve(tmp_path / name) for name in ("none", "same", "rounded"))
    assert [loss for _, loss in same] == pytest.approx([loss for _, loss in plain], rel=1e-4)
    assert coarse[-1][1] < coarse[0][1] / 2
    assert coarse != plain


# --- the command


def test_the_command_trains_from_a_recipe_and_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = student.create(StudentSection(hidden=32, layers=1, heads=2, inner=32), words(tmp_path / "words"))
    student.save(model, tmp_path / "teacher", {})
    tables.write(tmp_path / "rows.jsonl", [{"prompt": row.prompt, "completion": row.completion} for row in rows()])
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "[teacher]\npath = 'teacher'\n[student]\nhidden = 32\nlayers = 1\nheads = 2\ninner = 32\n"
        "[train]\ndata = 'rows.jsonl'\ndev = 'rows.jsonl'\nsteps = 6\nsave_every = 3\nloss = 'jsd:0.5'\n"
    )
    assert main(["distill", "train", str(recipe), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["stopped"]) == (6, "steps")
    assert told["scores"]["loss"] > 0
    assert Path(told["folder"]) == tmp_path / "small" / "student"
    assert main(["distill", "train", str(recipe), "--out", str(tmp_path / "other"), "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert "6 steps" in out
    assert "tokens/s" in err
    recipe.write_text(recipe.read_text().replace("jsd:0.5", "topk+rest"))
    assert main(["distill", "train", str(recipe)]) == 2
    assert "small.toml:" in capsys.readouterr().err
