"""Interaction with a real student: it learns a slot that it did not know, and prefers what it was told to prefer."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from stepwell.cli.main import main
from stepwell.distill.critique import writing
from stepwell.distill.data import Example
from stepwell.distill.interact import Job, interact
from stepwell.distill.lessons import Pair
from stepwell.distill.plan import Plan, StudentSection
from stepwell.distill.preference import gains, prefer, row_of
from stepwell.distill.pupil import Student
from stepwell.distill.rounds import InteractSection
from stepwell.distill.student import Model, create, load, save
from stepwell.distill.train import train
from stepwell.engines.answers import Answers, Budget
from stepwell.quality.verify import bracketed, verifier

pytestmark = pytest.mark.timeout(400)  # torch on two busy cores

MODEL = ROOT / "models" / "house-writer"
TINY = StudentSection(hidden=64, layers=2, heads=2, kv_heads=1, inner=128)
FOODS = ("French", "Italian", "Indian", "Chinese")
AREAS = ("riverside", "city centre")
NAMES = ("Loch Fyne", "Zizzi", "Aromi", "Strada", "Cotto", "Fitzbillies")
verify = verifier("values")


def sentence(prompt: str) -> str:
    facts = bracketed(prompt)
    where = f" in the {facts['area']}" if "area" in facts else ""
    return f"{facts['name']} serves {facts['food']} food{where}."


def old_prompts() -> list[str]:
    return [f"name[{name}], food[{food}]" for name in NAMES for food in FOODS]


def new_prompts() -> list[str]:
    return [f"{prompt}, area[{area}]" for prompt in old_prompts() for area in AREAS]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that says names and foods, and has never heard of areas."""
    out = tmp_path_factory.mktemp("begun")
    plan = Plan(steps=150, batch_tokens=1024, rate=5e-3, warm_steps=10, average=0.9, save_every=150)
    rows = [Example(prompt, sentence(prompt)) for prompt in old_prompts()[:-4]]
    return train(plan, create(TINY, MODEL), rows, out).folder


def test_a_student_learns_a_slot_by_interaction_and_keeps_the_others(begun: Path, tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers")
    budget = Budget(calls=40)
    plan = Plan(steps=80, batch_tokens=1024, rate=5e-3, warm_steps=5, average=0.9, save_every=80)
    settings = InteractSection(
        prompts="",
        old="",
        held_new="",
        held_old="",
        verifier="values",
        practice=20,
        repairs=20,
        rounds=2,
        goal=0.9,
        max_loss=0.3,
        preference=0.1,
        train=plan,
    )
    heard: list[str] = []
    pupil = Student(settings, watch=lambda what, _done, _all: heard.append(what.partition(",")[0]))
    new = new_prompts()
    random.Random(0).shuffle(new)
    told = interact(
        Job(
            section=settings,
            root=tmp_path,
            student=begun,
            prompts=new[:-12],
            old=[Example(prompt, sentence(prompt)) for prompt in old_prompts()[:-4]],
            held_new=new[-12:],
            held_old=old_prompts()[-4:],
            verify=verify,
            tell=writing(lambda prompts, _attempt: list(map(sentence, prompts)), "teacher@1", answers, budget),
            teacher="teacher@1",
            spent=answers.spent,
            pupil=pupil,
        )
    )
    assert told.rounds[0].new < 0.2
    assert told.best.new > 0.6
    assert answers.spent().calls <= 40
    assert {"answer", "learn", "prefer"} <= set(heard)
    assert Path(told.best.student, "model.safetensors").exists()


def test_what_is_preferred_gains_on_what_is_not(begun: Path) -> None:
    model = load(begun)
    pairs = [Pair(prompt, sentence(prompt), f"{bracketed(prompt)['name']} is a place.") for prompt in old_prompts()]
    rows = [(row_of(model, pair.prompt, pair.chosen), row_of(model, pair.prompt, pair.rejected)) for pair in pairs]
    with torch.no_grad():
        before = gains(model, rows).mean().item()
    losses: list[float] = []
    prefer(model, pairs, 20, rate=1e-3, watch=lambda _step, loss: losses.append(loss))
    with torch.no_grad():
        after = gains(model, rows).mean().item()
    assert after > before + 1
    assert losses[-1] < losses[0]
    assert not model.module.training


def test_the_gain_is_the_likelihood_of_the_tokens(begun: Path) -> None:
    model = load(begun)
    prompt, texts = old_prompts()[0], (sentence(old_prompts()[0]), "no")
    with torch.no_grad():
        told = gains(model, [(row_of(model, prompt, texts[0]), row_of(model, prompt, texts[1]))])
        longer, shorter = (log_likelihood(model, prompt, text) for text in texts)
    assert told.item() == pytest.approx(longer - shorter, abs=1e-3)


def log_likelihood(model: Model, prompt: str, text: str) -> float:
    asked, said = model.prompt_ids(prompt), model.text_ids(text)
    hidden = model.hidden(torch.tensor([[*asked, *said[:-1]]]))
    logp = torch.log_softmax(model.logits(hidden)[0, len(asked) - 1 :], -1)
    return sum(logp[place, token].item() for place, token in enumerate(said))


RECIPE = """
[student]
folder = "begin"
[teacher]
path = "{writer}"
{teacher}
[interact]
prompts = "prompts.jsonl"
old = "old.jsonl"
held_new = "held_new.jsonl"
held_old = "held_old.jsonl"
practice = 12
repairs = 6
rounds = 2
swaps = 2
{interact}
[interact.train]
steps = 3
batch_tokens = 512
max_tokens = 16
"""


def recipe(folder: Path, *, teacher: str = "", interact: str = "") -> Path:
    """A recipe with a student that knows nothing, and the house writer as its teacher."""
    save(create(TINY, MODEL), folder / "begin", {})
    new = [f"{prompt}, near[Burger King]" for prompt in old_prompts()]
    rows = {"prompts": new[:-4], "old": old_prompts()[:-4], "held_new": new[-4:], "held_old": old_prompts()[-4:]}
    for name, prompts in rows.items():
        lines = [{"prompt": prompt, "completion": sentence(prompt)} for prompt in prompts]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = folder / "skill.toml"
    file.write_text(RECIPE.format(writer=MODEL, teacher=teacher, interact=interact))
    return file


def test_the_command_leaves_a_student_a_picture_and_what_was_paid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, root = recipe(tmp_path), tmp_path / "run"
    assert main(["distill", "interact", str(file), "--root", str(root), "--max-calls", "9", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["rounds"][-1]["calls"] == 9
    assert 1 <= told["rounds"][1]["num_repaired"] <= 6
    assert (root / "skills.svg").read_text().startswith("<svg")
    assert load(root / "student").tokenizer_hash == load(MODEL).tokenizer_hash
    assert json.loads((root / "interact.json").read_text()) == told
    account = (root / "answers" / "account.jsonl").read_text()
    assert main(["distill", "interact", str(file), "--root", str(root), "--max-calls", "9"]) == 1
    assert "9" in capsys.readouterr().out
    assert (root / "answers" / "account.jsonl").read_text() == account


def test_a_killed_command_goes_on_and_pays_nothing_twice(tmp_path: Path) -> None:
    file, root = recipe(tmp_path), tmp_path / "run"
    command = [sys.executable, "-m", "stepwell.cli", "distill", "interact", str(file), "--root", str(root), "--json"]
    account = root / "answers" / "account.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(root.glob("round-01-*/lessons.jsonl")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    paid = Answers(root / "answers").spent().calls
    ended = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    calls = [each["calls"] for each in ended["rounds"]]
    assert paid == calls[1]
    assert len(account.read_text().splitlines()) == 2 * calls[-1]  # each begun once, and ended once


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"interact": 'verifier = "nobody"'}, "no verifier 'nobody'"),
        ({"interact": 'critique = "teacher"'}, "answers prompts"),
        ({"interact": "goal = 2"}, "goal"),
        ({"interact": "practise = 2"}, "did you mean 'practice'"),
    ],
)
def test_a_wrong_recipe_is_told(
    tmp_path: Path, known: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recipe(tmp_path, **known)
    assert main(["distill", "interact", str(file), "--root", str(tmp_path / "run")]) != 0
    assert said in capsys.readouterr().err


def test_rows_that_are_held_out_or_damaged_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recipe(tmp_path)
    (tmp_path / "held_old.jsonl").write_bytes((tmp_path / "old.jsonl").read_bytes())
    assert main(["distill", "interact", str(file), "--root", str(tmp_path / "run")]) != 0
    assert "held out" in capsys.readouterr().err
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "name[A], food[B]"}\n{"prom')
    assert main(["distill", "interact", str(file), "--root", str(tmp_path / "run")]) != 0
    assert "prompts.jsonl: line 2" in capsys.readouterr().err
