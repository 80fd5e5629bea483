"""The stage that makes the student."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec.structs import replace

from stepwell.campaigns import learning
from stepwell.campaigns.run import Folders, Stage
from stepwell.campaigns.specialist_job import FILTER, SPLIT, TEACH, TRAIN, Job, folder_digest
from stepwell.campaigns.specialist_quantize import learned_with
from stepwell.campaigns.specialist_rows import HELD_OUT, chance, prompt_key
from stepwell.campaigns.specialist_teach import LOGITS, ROWS
from stepwell.distill.data import Example, examples
from stepwell.distill.plan import SPARSE, Plan, StudentSection, parsed
from stepwell.errors import DistillError
from stepwell.synth import row, run
from stepwell.synth.leaks import leaks
from stepwell.synth.row import Row

LEAKS = frozenset({"row", "facts", "prompt"})
"""What of a held-out set may not be learned from; that words of a text come back is said by the filter."""


def train(job: Job) -> Stage:
    """`train` leaves `run/student/`, `run/log.jsonl`, `run/loss.svg` and `told.json`."""
    file = job.recipe.file
    plan = plan_of(job)
    quantized = learned_with(job.recipe)
    sparse = parsed(plan.loss)[0] in SPARSE

    def work(before: Folders, out: Path) -> None:
        rows = learned_rows(before)
        check_leaks(rows, list(row.read(before[SPLIT] / HELD_OUT)))
        learn, dev = parted(job, rows)
        told = learning.Job(
            plan=plan,
            student=student_of(job),
            words=str(job.recipe.words()),
            teacher=str(job.recipe.teacher()) if job.recipe.needs_teacher else "",
            sparse=str(before[TEACH] / LOGITS) if sparse else "",
            learn=learn,
            dev=dev,
            quantized=quantized,
        )
        learning.learned(told, out, job.allowed.processes, job.allowed.progress)

    given = msgspec.json.encode((file.train, file.student, file.split, *([quantized] if quantized else [])))
    begins = job.recipe.path(file.student.folder) if file.student.folder else job.recipe.words()
    folders = [begins, *([job.recipe.teacher()] if job.recipe.needs_teacher else [])]
    dev = [run.digest(job.recipe.path(file.train.dev))] if file.train.dev else []
    return Stage(TRAIN, given + b"".join([*map(folder_digest, folders), *dev]), work, resumes=True)


def plan_of(job: Job) -> Plan:
    """`[train]` as it is run. Raises DistillError where the teacher's probabilities are of other tokens."""
    recipe = job.recipe
    plan = replace(recipe.file.train, data="", dev="")
    if parsed(plan.loss)[0] not in SPARSE or recipe.same_words():
        return plan
    if plan.fallback == "text":
        return replace(plan, loss="ce")
    what = f"the student's tokenizer ({recipe.words()}) is not the teacher's: its probabilities are of other tokens"
    raise DistillError(f'{what}; take the teacher\'s, or set fallback = "text" under [train] to learn its texts alone')


def learned_rows(before: Folders) -> list[Row]:
    """The rows to learn from. Raises DistillError where one has no completion."""
    rows = list(row.read(before[TEACH] / ROWS if TEACH in before else before[FILTER] / run.ROWS))
    bare = [each for each in rows if not each.completion]
    if bare:
        what = f"{len(bare)} of {len(rows)} rows have no completion, the first is {bare[0].prompt[:80]!r}"
        raise DistillError(f"{what}: add [teacher] or [synth.generator]")
    return rows


def check_leaks(rows: Sequence[Row], held: Sequence[Row]) -> None:
    """Raise DistillError where a row asks what the gate will ask."""
    found = leaks([(each.prompt, each.completion) for each in rows], [(each.prompt, "") for each in held])
    for place, leak in found.items():
        if leak.kind in LEAKS:
            raise DistillError(f"row {rows[place].id} holds {leak.what}: take it out of what is learned from")


def parted(job: Job, rows: Sequence[Row]) -> tuple[list[Example], list[Example]]:
    """What is learned, and what decides which weights are the best: other prompts, the same in every run."""
    split, named = job.recipe.file.split, job.recipe.file.train.dev
    given = examples(job.recipe.path(named)) if named else []
    dev = [] if named else [each for each in rows if chance(each, "dev") < split.dev]
    kept = {prompt_key(each) for each in dev[: split.most_dev]}
    learn = [example(each) for each in rows if prompt_key(each) not in kept]
    if not learn:
        raise DistillError("no row is left to learn from: lower split.dev or split.held_out")
    return learn, given or [example(each) for each in dev[: split.most_dev]]


def example(each: Row) -> Example:
    """A row as an example."""
    return Example(each.prompt, each.completion, 1.0, each.id)


def data_sha256(rows: Sequence[Row]) -> str:
    """The name of rows by what they say."""
    total = sha256()
    for each in rows:
        total.update(f"{each.prompt}\0{each.completion}\0".encode())
    return total.hexdigest()


def student_of(job: Job) -> StudentSection:
    """The student's section with its paths found."""
    section = job.recipe.file.student
    return replace(section, folder=str(job.recipe.path(section.folder)) if section.folder else "")
