"""The stage in which the teacher speaks: texts where rows have none, and its probabilities of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from stepwell.campaigns.run import Folders, Stage
from stepwell.campaigns.specialist_job import ANSWERS, FILTER, SPLIT, TEACH, Job, folder_digest, paying
from stepwell.campaigns.specialist_rows import HELD_OUT
from stepwell.distill import teach
from stepwell.distill.teach import TeacherSection
from stepwell.engines.answers import Spent
from stepwell.errors import DistillError
from stepwell.quality.judges import source_of
from stepwell.store import tables
from stepwell.synth import row, run
from stepwell.synth.captured import is_teachers
from stepwell.synth.row import Row

ROWS, JUDGED = "rows", "held_out.jsonl"
LOGITS = "all/logits"
"""The teacher's stored probabilities, as `teach` lays them."""


def stage(job: Job, section: TeacherSection) -> Stage:
    """`teach` leaves `rows/`, `held_out.jsonl` with the teacher's answers and, where it gives them, `logits/`."""

    def work(before: Folders, out: Path) -> None:
        rows, held = row.read(before[FILTER] / run.ROWS), row.read(before[SPLIT] / HELD_OUT)
        with paying(job, out):
            written = texts(job, replace(section, give="texts"), list(rows), out / "texts")
            if section.give == "logits":
                written = asked(job, section, written, out / "all")
            bare = [replace(each, completion=said(each)) for each in held]
            answered = whole(bare, texts(job, plain(section), bare, out / "held_out"))
        put(out / ROWS, written)
        row.write(out / JUDGED, answered)

    verifier = source_of(section.verifier, field="teacher.verifier")
    return Stage(TEACH, msgspec.json.encode(section) + revision(job, section) + verifier, work, resumes=True)


def revision(job: Job, section: TeacherSection) -> bytes:
    """Which teacher it is: a model of one's own by its weights, a server by its name alone."""
    return folder_digest(job.recipe.path(section.path)) if section.path else b""


def said(each: Row) -> str:
    """The teacher's answer to a held-out prompt, where it was the teacher that was captured."""
    return each.completion if is_teachers(each) else ""


def plain(section: TeacherSection) -> TeacherSection:
    """The teacher as it answers callers: its one likeliest answer, whether it is right or not."""
    return replace(section, give="texts", num=1, temperature=0.0, verifier="", language="", select="all", most=0)


def put(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, unless a run that was cut short has done so."""
    if not path.exists():
        row.write(path, rows)


def whole(held: Sequence[Row], answered: Sequence[Row]) -> list[Row]:
    """All held-out rows: the student answers, too, what the teacher refused or was cut off at; its text is empty."""
    there = {each.prompt for each in answered}
    return [*answered, *(each for each in held if each.prompt not in there)]


def texts(job: Job, section: TeacherSection, rows: Sequence[Row], out: Path) -> list[Row]:
    """The rows with a completion each; those that the teacher could not answer well are left out."""
    bare = [each for each in rows if not each.completion]
    return [each for each in rows if each.completion] + (asked(job, section, bare, out) if bare else [])


def asked(job: Job, section: TeacherSection, rows: Sequence[Row], out: Path) -> list[Row]:
    """The rows with what the teacher gave. Raises DistillError where it could not be asked about all of them."""

    def watch(done: int, num: int, spent: Spent) -> None:
        job.allowed.progress(done, num, f"{spent.calls} calls, {spent.usd:.4f} USD" if spent.usd else section.give)

    work = teach.Job(
        section,
        job.recipe.source.parent,
        out,
        budget=job.allowed.budget,
        watch=watch,
        kept=job.root / ANSWERS,
    )
    told = teach.teach(work, [msgspec.to_builtins(each) for each in rows], i_may=job.allowed.i_may)
    if not told.complete:
        raise DistillError(f"the teacher is not done: {told.why}; run again to go on, nothing is paid twice")
    return [msgspec.convert(each, Row) for each in tables.read(out / "rows.jsonl")]
