"""A new skill by interaction: answer, be told what was wrong, learn the repaired answer beside the old skills, again.

A round is a folder named by all that went into it; what is in it is not done again, and what the teacher answered is
kept beside all rounds: a run that was killed goes on where it was, and nothing is paid for twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from stepwell.distill import curriculum, lessons, replay, rounds
from stepwell.distill.critique import Repaired, Tell, Wrong, mended
from stepwell.distill.data import Example, digest
from stepwell.distill.lessons import Lesson, Names, Pair
from stepwell.distill.rounds import Interaction, InteractSection, Round, Try
from stepwell.distill.skill_picture import picture
from stepwell.engines.answers import Spent
from stepwell.errors import DistillError
from stepwell.quality.verify import Verify

HASH_CHARS = 12
PICTURE = "skills.svg"


class Taught(NamedTuple):
    """What is learned in a round: examples, and answers to prefer to others."""

    examples: Callable[[int], list[Example]]
    """Those of an epoch."""
    pairs: list[Pair]


class Pupil(Protocol):
    """Who learns; a student is a folder."""

    def answers(self, student: Path, prompts: Sequence[str]) -> list[str]:
        """The student's answers."""
        ...

    def learn(self, student: Path, taught: Taught, out: Path) -> Path:
        """The folder, in `out`, of what the student becomes; a call that was cut short is gone on with."""
        ...

    def revision(self, student: Path) -> str:
        """A name for its weights."""
        ...


class Job(Struct, frozen=True, kw_only=True):
    """Everything that an interaction needs."""

    section: InteractSection
    root: Path
    student: Path
    prompts: Sequence[str]
    """They ask for the new skill."""
    old: Sequence[Example]
    held_new: Sequence[str]
    held_old: Sequence[str]
    verify: Verify
    tell: Tell
    teacher: str
    """Name and revision of the teacher, `name@revision`."""
    how: bytes = b""
    """How it is asked: rounds that were begun with other words are not gone on with."""
    spent: Callable[[], Spent]
    pupil: Pupil
    watch: Callable[[str, Round | None], Any] = lambda _what, _round: None
    """Told what begins, and each round that is over."""


def interact(job: Job) -> Interaction:
    """Rounds until the new skill is there, the old one falls, or nothing more can be repaired.

    Raises DistillError where a held-out prompt is among those to learn from.
    """
    check_apart(job)
    done = [before(job)]
    while not (reason := rounds.ended(done, job.section)):
        over, reason = another(job, done)
        if over is None:
            break
        done.append(over)
        (job.root / PICTURE).write_text(picture(done, job.section), encoding="utf-8")
    return Interaction(tuple(done), rounds.best_of(done, job.section.max_loss), reason)


def check_apart(job: Job) -> None:
    """Refuse to measure on what is learned."""
    held = {*job.held_new, *job.held_old}
    if not job.prompts or not job.held_new or not job.held_old:
        raise DistillError("[interact] needs prompts, and held-out prompts of both skills: one of them is empty")
    for prompt in (*job.prompts, *(row.prompt for row in job.old)):
        if prompt in held:
            raise DistillError(f"held out, and among what is learned from, too: {prompt[:120]!r}; take it out of one")


def before(job: Job) -> Round:
    """Round 0: the student as it came."""
    folder = job.root / f"round-00-{digest_of(job, 0)}"
    return closed(job, folder, Round(number=0, new=0.0, old=0.0, student=str(job.student)))


def another(job: Job, done: Sequence[Round]) -> tuple[Round | None, str]:
    """One more round; or none, and why."""
    number = len(done)
    folder = job.root / f"round-{number:02}-{digest_of(job, number)}"
    student = Path(done[-1].student)
    job.watch(f"round {number}: the student answers", None)
    tries = rounds.kept(folder / rounds.PRACTICE, Try, lambda: practised(job, student, number))
    wrongs = [Wrong(each.prompt, each.answer, each.complaints) for each in tries if each.complaints]
    job.watch(f"round {number}: the teacher repairs", None)
    repaired = corrected(job, folder, wrongs[: job.section.repairs])
    if not repaired:
        return None, "nothing was repaired; see apart.jsonl, or the budget" if wrongs else "practice shows no mistake"
    names = Names(job.teacher, f"student@{job.pupil.revision(student)}")
    new = rounds.kept(folder / rounds.LESSONS, Lesson, lambda: lessons.from_round(job.section, names, tries, repaired))
    job.watch(f"round {number}: the student learns", None)
    learned = job.pupil.learn(student, taught(job, number, repaired, rounds.share_old(done, job.section)), folder)
    told = Round(
        number=number,
        new=0.0,
        old=0.0,
        student=str(learned),
        num_practised=len(tries),
        num_failed=len(wrongs),
        num_repaired=len(repaired),
        num_lessons=len(new),
    )
    return closed(job, folder, told), ""


def practised(job: Job, student: Path, number: int) -> Iterator[Try]:
    """The student's answers to prompts of the kinds that it failed at in the round before."""
    past = [each for folder in earlier(job, number) for each in rounds.read(folder / rounds.PRACTICE, Try)]
    asked = {each.prompt for each in past}
    known = curriculum.tally((each.prompt, bool(each.complaints)) for each in past[-job.section.practice :])
    prompts = curriculum.drawn(
        [prompt for prompt in job.prompts if prompt not in asked],
        known,
        job.section.practice,
        share_random=job.section.share_random,
        chance=chance_of(job, number),
    )
    for prompt, answer in zip(prompts, job.pupil.answers(student, prompts), strict=True):
        yield Try(prompt, answer, tuple(job.verify(prompt, answer)))


def corrected(job: Job, folder: Path, wrongs: Sequence[Wrong]) -> list[Repaired]:
    """The answers that could be repaired; the others are kept apart. Nothing is kept where none could."""
    file = folder / rounds.REPAIRED
    if file.exists():
        return rounds.read(file, Repaired)
    after = mended(wrongs, job.tell, job.verify, job.section.tries)
    rounds.write(folder / rounds.APART, after.apart)
    return rounds.kept(file, Repaired, lambda: after.repaired) if after.repaired else []


def taught(job: Job, number: int, repaired: Sequence[Repaired], share_old: float) -> Taught:
    """The lessons of this round and all before it; in each epoch with other swaps, and a replay of other old rows."""
    new = [row for folder in earlier(job, number + 1) for row in rounds.read(folder / rounds.LESSONS, Lesson)]
    values = replay.values_of([*job.prompts, *(row.prompt for row in job.old)])
    held = {*job.held_new, *job.held_old}

    def epoch(at: int) -> list[Example]:
        chance = chance_of(job, number, at)
        more = lessons.from_swaps(new, job.section.swaps, values, job.verify, held=held, chance=chance)
        examples = [Example(row.prompt, row.completion, id=row.id) for row in (*new, *more)]
        return replay.mixed(examples, job.old, share_old, chance)

    return Taught(epoch, lessons.pairs_of(repaired))


def closed(job: Job, folder: Path, told: Round) -> Round:
    """Measure a round's student on what is held out, and write the round down."""

    def measured() -> Iterator[Round]:
        job.watch(f"round {told.number}: measure both skills", None)
        student, spent = Path(told.student), job.spent()
        new, old = skill(job, student, job.held_new), skill(job, student, job.held_old)
        yield msgspec.structs.replace(told, new=new, old=old, calls=spent.calls, usd=spent.usd)

    over = rounds.kept(folder / rounds.RESULT, Round, measured)[0]
    job.watch("", over)
    return over


def skill(job: Job, student: Path, prompts: Sequence[str]) -> float:
    """Share of prompts that are answered right."""
    said = job.pupil.answers(student, prompts)
    return sum(not job.verify(*pair) for pair in zip(prompts, said, strict=True)) / len(prompts)


def earlier(job: Job, number: int) -> list[Path]:
    """The folders of the rounds 1 .. number - 1."""
    return [job.root / f"round-{past:02}-{digest_of(job, past)}" for past in range(1, number)]


def digest_of(job: Job, number: int) -> str:
    """A name for all that a round depends on; when to stop is no part of it, so that a longer run goes on."""
    section = msgspec.structs.replace(job.section, rounds=1, goal=1.0)
    parts = (
        msgspec.json.encode(section),
        job.pupil.revision(job.student).encode(),
        msgspec.json.encode([sorted(job.prompts), sorted(job.held_new), sorted(job.held_old)]),
        digest(job.old).encode(),
        job.teacher.encode() + job.how,
        str(number).encode(),
    )
    return sha256(b"\0".join(parts)).hexdigest()[:HASH_CHARS]


def chance_of(job: Job, *place: int) -> random.Random:
    """The same chance whenever a round, or an epoch of it, is done again."""
    return random.Random(f"{job.section.seed}/{place}")  # noqa: S311 - no secret
