"""A recipe's interaction, put together: its student, its rows, its teacher, and what may be paid.

ROOT/answers/       what the teacher answered and what was paid, over all runs
ROOT/round-NN-*/    what a round asked, repaired, learned and measured
ROOT/student/       the best student that kept the old skill
ROOT/skills.svg     both skills over the rounds
ROOT/interact.json  how it ended
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.campaigns.specialist_file import Recipe
from stepwell.distill import teach
from stepwell.distill.critique import Tell, asking, writing
from stepwell.distill.data import examples
from stepwell.distill.generate import generate
from stepwell.distill.interact import Job, interact
from stepwell.distill.pupil import Student, Watch
from stepwell.distill.rounds import Interaction, InteractSection, Round
from stepwell.distill.student import fingerprint, load
from stepwell.distill.teach import TeacherSection
from stepwell.engines import terms
from stepwell.engines.answers import Answers, Budget
from stepwell.errors import ConfigError, DistillError
from stepwell.quality.verify import verifier
from stepwell.store import tables

ANSWERS, STUDENT, RESULT = "answers", "student", "interact.json"
REVISION_CHARS = 12


class Allowed(Struct, frozen=True):
    """What whoever runs it allows, and wants to hear."""

    budget: Budget = Budget()
    i_may: bool = False
    """Learn from a teacher whose terms restrict training: somebody has read them."""
    device: str = "cpu"
    watch: Callable[[str, Round | None], Any] = lambda _what, _round: None
    """Told what begins, and each round that is over."""
    progress: Watch = lambda _what, _done, _all: None
    """Told how much of it is done."""


def interacted(recipe: Recipe, root: Path, allowed: Allowed) -> Interaction:
    """Run the interaction, or go on with it. Raises ConfigError, DistillError, StoreError, EngineError."""
    section, teacher = wanted(recipe)
    terms.check(teacher.url, teacher.name, i_may=allowed.i_may)
    begin = recipe.path(recipe.file.student.folder)
    answers = Answers(root / ANSWERS)
    name, tell = told_by(recipe, teacher, section, root, allowed)
    job = Job(
        section=section,
        root=root,
        student=begin,
        prompts=prompts(recipe.path(section.prompts)),
        old=examples(recipe.path(section.old)),
        held_new=prompts(recipe.path(section.held_new)),
        held_old=prompts(recipe.path(section.held_old)),
        verify=verifier(section.verifier, field="interact.verifier"),
        tell=tell,
        teacher=name,
        how=msgspec.json.encode(teacher),
        spent=answers.spent,
        pupil=Student(section, allowed.device, allowed.progress),
        watch=allowed.watch,
    )
    root.mkdir(parents=True, exist_ok=True)
    ended = interact(job)
    keep(ended, root)
    return ended


def wanted(recipe: Recipe) -> tuple[InteractSection, TeacherSection]:
    """The sections that it needs. Raises ConfigError."""
    file = recipe.file
    if not file.student.folder:
        what = "name the folder of the student that is to learn"
        raise ConfigError(what, file=str(recipe.source), field="student.folder")
    if file.interact is None or file.teacher is None:
        raise ConfigError("an interaction needs the sections [interact] and [teacher]", file=str(recipe.source))
    return file.interact, file.teacher


def told_by(
    recipe: Recipe, teacher: TeacherSection, section: InteractSection, root: Path, allowed: Allowed
) -> tuple[str, Tell]:
    """The teacher's name with its revision, and the way to ask it."""
    if not teacher.is_folder:
        talks = section.critique == "teacher" or (section.critique == "auto" and bool(teacher.url))
        job = teach.Job(teacher, recipe.source.parent, root, allowed.budget)
        return f"{teacher.name}@{teacher.url or teacher.path}", asking(job, talks=talks)
    if section.critique == "teacher":
        what = "a folder is a model that answers prompts: name a server or a GGUF file, or leave `critique` out"
        raise ConfigError(what, file=str(recipe.source), field="interact.critique")
    folder = recipe.path(teacher.path)
    name = f"{teacher.name}@{fingerprint(folder)[:REVISION_CHARS]}"
    model = load(folder, device=allowed.device)

    def write(asked: Sequence[str], attempt: int) -> list[str]:
        warmth = teacher.temperature or (0.0 if not attempt else 0.7)
        seed = teacher.seed + attempt
        said = generate(model, asked, temperature=warmth, max_tokens=teacher.max_tokens, seed=seed)
        return [texts[0] for texts in said]

    return name, writing(write, name, Answers(root / ANSWERS), allowed.budget)


def prompts(path: Path) -> list[str]:
    """The prompts of rows, each once. Raises DistillError with the row that has none, StoreError."""
    found: dict[str, None] = {}
    for line, row in enumerate(tables.read(path), 1):
        prompt = row.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise DistillError("a row needs the text `prompt`", file=str(path), line=line)
        found[prompt] = None
    return list(found)


def keep(ended: Interaction, root: Path) -> None:
    """Put the best student, and how it ended, where they are found."""
    incoming = root / f".{STUDENT}.part"
    shutil.rmtree(incoming, ignore_errors=True)
    shutil.copytree(ended.best.student, incoming)
    shutil.rmtree(root / STUDENT, ignore_errors=True)
    incoming.rename(root / STUDENT)
    file = root / f"{RESULT}.part"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(ended)) + b"\n")
    file.replace(root / RESULT)
