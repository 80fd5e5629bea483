"""A slot that a student was never taught, learned by interaction: at most 500 answers of a teacher that knows it.

The student begins without the slot: neither its prompts nor its texts have it. The teacher is the house writer. What
is chosen (which slot, how many steps, when to stop) is chosen on E2E's dev prompts; what is reported are its test
prompts: an answer is right when it says every fact and no other, by `quality/slots`, which the loop itself asks, and
beside it by `quality/slots_apart`, which nothing in the loop knows.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from recipes.writer import data

from bench.distill import e2e
from stepwell.distill.critique import writing
from stepwell.distill.data import Example
from stepwell.distill.generate import generate
from stepwell.distill.interact import Job, interact
from stepwell.distill.plan import Plan
from stepwell.distill.pupil import Student
from stepwell.distill.rounds import Interaction, InteractSection, Round
from stepwell.distill.student import create, fingerprint, load
from stepwell.distill.train import train
from stepwell.engines.answers import Answers, Budget
from stepwell.quality import slots
from stepwell.quality.verify import verifier
from stepwell.synth.recombine import recombined
from stepwell.synth.row import made

SLOT = "familyFriendly"
TEACHER = f"house-writer@{fingerprint(e2e.TEACHER)[:12]}"
SEEDS = (0, 1, 2)
MAX_CALLS = 500
POOL = 4_000
"""Prompts of the new skill that the student may practise on."""
CHECKERS = ("slots", "slots_apart")


class Size(NamedTuple):
    """How much of everything."""

    seeds: tuple[int, ...]
    taught: int
    """Texts of the teacher that the student begins with, all without the slot."""
    base: Plan
    interact: InteractSection
    test: int
    """Test prompts of each skill, at most."""
    dev: int


BASE = Plan(
    steps=1_000, batch_tokens=2_600, optimizer="muon", rate=5e-3, warm_steps=50, average=0.998, save_every=1_000
)
ROUND = replace(BASE, steps=300, rate=4e-3, warm_steps=10, average=0.99, save_every=300)
SETTINGS = InteractSection(
    prompts="",
    old="",
    held_new="",
    held_old="",
    rounds=3,
    practice=1_200,
    repairs=200,
    swaps=1,
    share_old=0.5,
    goal=0.98,
    max_loss=0.02,
    train=ROUND,
    licence=e2e.LICENCE,
)
FULL = Size(SEEDS, 8_000, BASE, SETTINGS, 10_000, 250)
QUICK = Size(
    (0,),
    1_000,
    replace(BASE, steps=250),
    replace(SETTINGS, rounds=1, practice=300, train=replace(ROUND, steps=150)),
    100,
    50,
)


class Prompts(NamedTuple):
    """Prompts with the slot, and without."""

    new: list[str]
    old: list[str]


def without(mr: str) -> str:
    """The same facts without the slot."""
    return data.written({name: value for name, value in slots.facts_of(mr).items() if name != SLOT})


def held_out(part: str, most: int) -> Prompts:
    """The prompts of E2E's dev or test set that have the slot; and all of them without it."""
    mrs = list(data.read(part))
    chance = random.Random(0)
    new, old = [mr for mr in mrs if SLOT in slots.facts_of(mr)], sorted({without(mr) for mr in mrs})
    return Prompts(*(chance.sample(each, min(most, len(each))) for each in (new, old)))


def to_learn(num_old: int, num_new: int) -> Prompts:
    """Prompts recombined from those of E2E's training set; none that is held out, with or without the slot."""
    held = {e2e.key(without(mr)) for part in ("dev", "test") for mr in data.read(part)}
    mrs = list(data.read("train"))

    def drawn(seen: Sequence[str], num: int) -> list[str]:
        rows = [made(mr, "?", source="seed", licence=e2e.LICENCE) for mr in seen if len(slots.facts_of(mr)) >= 4]
        found = recombined(rows, num * 5 // 4, licence=e2e.LICENCE, seed=0)
        return [row.prompt for row in found if e2e.key(without(row.prompt)) not in held][:num]

    new = [mr for mr in mrs if SLOT in slots.facts_of(mr)]
    return Prompts(drawn(new, num_new), drawn(sorted({without(mr) for mr in mrs}), num_old))


class Lessons(NamedTuple):
    """What there is to learn from: prompts of the new skill, and answered ones of the old."""

    new: list[str]
    old: list[Example]


def lessons(size: Size) -> Lessons:
    """The same for all seeds: prompts, and to the old ones the teacher's own answers where they are right."""
    prompts = to_learn(size.taught, POOL)
    said = [texts[0] for texts in generate(load(e2e.TEACHER, dtype=torch.bfloat16), prompts.old)]
    right = verifier("slots")
    old = [Example(mr, text) for mr, text in zip(prompts.old, said, strict=True) if not right(mr, text)]
    return Lessons(prompts.new, old)


def begun(size: Size, seed: int, known: Lessons, out: Path) -> Path:
    """A student that has learned all but the slot."""
    return train(replace(size.base, seed=seed), create(e2e.STUDENT, e2e.TEACHER, seed), known.old, out).folder


def learned(size: Size, seed: int, student: Path, known: Lessons, out: Path) -> Interaction:
    """The interaction; it stops, and chooses its best round, by the dev set."""
    settings = replace(size.interact, seed=seed, train=replace(size.interact.train, seed=seed))
    answers, dev = Answers(out / "answers"), held_out("dev", size.dev)
    job = Job(
        section=settings,
        root=out,
        student=student,
        prompts=known.new,
        old=known.old,
        held_new=dev.new,
        held_old=dev.old,
        verify=verifier("slots"),
        tell=writing(house_writer, TEACHER, answers, Budget(calls=MAX_CALLS)),
        teacher=TEACHER,
        spent=answers.spent,
        pupil=Student(settings),
        watch=shown,
    )
    return interact(job)


def house_writer(prompts: Sequence[str], attempt: int) -> list[str]:
    """The teacher: its likeliest answer first, a drawn one where that was wrong."""
    warmth = 0.7 if attempt else 0.0
    return [
        said[0] for said in generate(load(e2e.TEACHER, dtype=torch.bfloat16), prompts, temperature=warmth, seed=attempt)
    ]


def shown(_what: str, over: Round | None) -> None:
    """A line a round."""
    if over is not None:
        told = f"{over.num_repaired} of {over.num_failed} repaired, {over.calls} calls so far"
        print(f"  round {over.number}: on dev new {over.new:.3f}, old {over.old:.3f}; {told}", flush=True)


Right = NDArray[np.float64]
"""1 for each prompt that was answered right, 0 for the others."""


def rights(student: Path, prompts: Sequence[str]) -> dict[str, Right]:
    """By each checker, which prompts a student answers right."""
    said = [texts[0] for texts in generate(load(student), prompts)]
    return {
        name: np.array([not verifier(name)(mr, text) for mr, text in zip(prompts, said, strict=True)], np.float64)
        for name in CHECKERS
    }


class Skill(NamedTuple):
    """One seed's student before and after, on the test prompts of both skills; by checker."""

    new_before: dict[str, Right]
    new_after: dict[str, Right]
    old_before: dict[str, Right]
    old_after: dict[str, Right]
    calls: int
    rounds: int


def one_seed(size: Size, seed: int, known: Lessons, out: Path) -> Skill:
    """Begin a student, let it learn, measure both on the test set."""
    print(f"seed {seed}", flush=True)
    before = begun(size, seed, known, out / "begun")
    told = learned(size, seed, before, known, out)
    print(f"  {told.reason}; round {told.best.number} is kept", flush=True)
    after, test = Path(told.best.student), held_out("test", size.test)
    measured = (rights(student, prompts) for prompts in (test.new, test.old) for student in (before, after))
    return Skill(*measured, told.rounds[-1].calls, told.rounds[-1].number)


def interval(values: Sequence[Right]) -> tuple[float, float]:
    """95 % of the mean over seeds and prompts, both drawn again (bootstrap, 2,000 times)."""
    table, chance = np.stack(values), np.random.default_rng(0)
    seeds, prompts = table.shape
    means = [
        table[chance.integers(0, seeds, seeds)][:, chance.integers(0, prompts, prompts)].mean() for _ in range(2_000)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def figures(skills: Sequence[Skill]) -> dict[str, float]:
    """Means over seeds with their intervals, by both checkers."""
    told: dict[str, float] = {}
    for checker in CHECKERS:
        suffix = "" if checker == CHECKERS[0] else "_apart"
        rows = {
            "new_skill_before": [each.new_before[checker] for each in skills],
            "new_skill_after": [each.new_after[checker] for each in skills],
            "old_skill_before": [each.old_before[checker] for each in skills],
            "old_skill_loss": [each.old_before[checker] - each.old_after[checker] for each in skills],
        }
        for key, values in rows.items():
            told[f"{key}{suffix}"] = float(np.mean(values))
            told[f"{key}{suffix}_low"], told[f"{key}{suffix}_high"] = interval(values)
    told["new_skill_calls"] = max(each.calls for each in skills)
    told["new_skill_seeds"] = len(skills)
    return told


def measure(*, quick: bool) -> dict[str, float]:
    """Shares of answers right on E2E's test prompts, before and after, and what the old skill lost."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        known = lessons(size)
        return figures([one_seed(size, seed, known, Path(folder) / str(seed)) for seed in size.seeds])
