"""A teacher behind an engine: many questions on their way at once, within the budget; what is no use is kept apart."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from random import uniform
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from stepwell.config import EmbeddedEngine, HttpEngine
from stepwell.distill.answered import WINDOW, Reader, Wanted, wanted
from stepwell.distill.teach import Asked, Job, Outcome, TeacherSection
from stepwell.engines.answers import BudgetReached, Kept
from stepwell.engines.asking import Teacher, asked, free
from stepwell.engines.batched import batched
from stepwell.engines.batches import Batches
from stepwell.engines.bearer import bearer, secret
from stepwell.engines.http import Http, OurKeyRefused
from stepwell.errors import DistillError, EngineError, EngineRefusal
from stepwell.ledger import prices
from stepwell.quality.files import sha256_of

TRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 5, 0.2, 20.0
TRY_AGAIN = (408, 409, 425, 429)
OF_THE_ACCOUNT = (402, 404)
"""Refusals that the next question would meet, too."""
HASH_CHARS = 12
NO_BREAKER = 1_000_000
"""Failures in a row before the engine gives up: tries are counted here."""
FIRST_BATCH, BATCH_GROWTH = 32, 8
"""Questions in the first batch: a teacher that is no use is noticed there."""


class Stopped(Struct):
    """Why nothing more is asked; shared by all who ask."""

    why: str = ""


def given(job: Job, rows: Sequence[Mapping[str, Any]]) -> Asked:
    """Ask about rows. Raises DistillError for a teacher whose answers are no use, EngineError where it cannot be asked.

    What was answered until then is kept, and paid for once.
    """
    return asyncio.run(_given(told_apart(job), rows))


def told_apart(job: Job) -> Job:
    """A file's name says which file it is: the answers of another one of the same name are not its own."""
    if not job.section.path:
        return job
    name = f"{job.section.name}@{sha256_of(job.path(job.section.path))[:HASH_CHARS]}"
    return replace(job, section=replace(job.section, model=name))


async def _given(job: Job, rows: Sequence[Mapping[str, Any]]) -> Asked:
    teacher = opened(job.section, str(job.path(job.section.path)) if job.section.path else "")
    try:
        return await Asking(job, teacher, wanted(job.section, rows)).all()
    finally:
        await teacher.engine.close()


class Asking:
    """One run of questions."""

    def __init__(self, job: Job, teacher: Teacher, questions: Sequence[Wanted]) -> None:
        self.job, self.teacher, self.questions = job, teacher, questions
        self.answers = job.answers
        self.reader = Reader(job)
        self.stopped = Stopped()
        self.in_flight = 0
        self.settled = asyncio.Event()
        """Set, and replaced, whenever a question is over."""
        self.faults: deque[str] = deque(maxlen=WINDOW)
        self.refused: dict[str, str] = {}
        """Why the server would not take a question, by its name."""
        self.counted: set[str] = set()

    async def all(self) -> Asked:
        """Ask all questions, or as many as the budget allows."""
        if self.job.again:
            self.forget()
        start, size = 0, FIRST_BATCH if self.teacher.batches else len(self.questions)
        done = count(1)
        while start < len(self.questions) and not self.stopped.why:
            wave = list(dict.fromkeys(each.body for each in self.questions[start : start + size]))
            await asyncio.to_thread(batched, self.teacher, wave, self.answers, self.job.budget)
            await self.wave(wave, done)
            start, size = start + size, size * BATCH_GROWTH
        outcomes = [each for question in self.questions if (each := self.outcome(question)) is not None]
        self.reader.close()
        return Asked(outcomes, self.stopped.why)

    async def wave(self, bodies: Sequence[bytes], done: count[int]) -> None:
        """Some questions, several at a time; after an error, what is on its way still arrives and is kept."""
        left = iter(bodies)

        async def ask() -> None:
            for body in left:
                if self.stopped.why:
                    return
                try:
                    await self.one(body)
                except BudgetReached as reached:
                    self.stopped.why = str(reached)
                    return
                except BaseException as error:
                    self.stopped.why = self.stopped.why or str(error)
                    raise
                self.job.watch(next(done), len(self.questions), self.answers.spent())

        ended = await asyncio.gather(*(ask() for _ in range(self.job.section.at_once)), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    async def one(self, body: bytes) -> None:
        """One question. Where others on their way have set the last money aside, wait for what they really cost."""
        while True:
            settled = self.settled
            try:
                kept = await self.tried(body)
            except BudgetReached:
                if self.in_flight == 0:
                    self.settle()
                    raise
                await settled.wait()
            except BaseException:
                self.settle()
                raise
            else:
                self.settle()
                if kept is not None:
                    self.note(self.reader.fault(kept))
                return

    def settle(self) -> None:
        """Wake those who wait for money."""
        self.settled.set()
        self.settled = asyncio.Event()

    async def tried(self, body: bytes) -> bytes | None:
        """The answer, after as many tries as it takes; None where the server will not take this very question."""
        for attempt in range(TRIES):
            self.in_flight += 1
            try:
                return bytes((await asked(self.teacher, body, self.answers, self.job.budget)).body)
            except EngineRefusal as error:
                if isinstance(error, OurKeyRefused) or error.status in OF_THE_ACCOUNT or attempt == TRIES - 1:
                    raise
                if error.status < 500 and error.status not in TRY_AGAIN:  # noqa: PLR2004
                    self.refused[self.teacher.key_of(body)] = f"the server will not take it: {error.status}"
                    self.note("not taken")
                    return None
                pause_s = error.retry_after_s
            except EngineError:
                if attempt == TRIES - 1:
                    raise
                pause_s = None
            finally:
                self.in_flight -= 1
            await asyncio.sleep(min(LONGEST_PAUSE_S, pause_s or uniform(0.5, 1.0) * FIRST_PAUSE_S * 4**attempt))  # noqa: S311
        raise DistillError("no try is allowed")

    def note(self, fault: str) -> None:
        """Remember whether an answer was of use. Raises DistillError where too many lately were not."""
        self.faults.append(fault)
        bad = [each for each in self.faults if each]
        most = self.job.section.most_faults
        if len(self.faults) == WINDOW and len(bad) > most * WINDOW:
            reasons = ", ".join(f"{bad.count(each)} {each}" for each in dict.fromkeys(bad))
            what = f"of the last {WINDOW} answers of {self.job.section.name!r}, {reasons}: nothing more is asked"
            raise DistillError(f"{what}. Change `ask`, `system` or the teacher; --again asks anew for what was no use")

    def outcome(self, question: Wanted) -> Outcome | None:
        """What became of a row; None where it was not asked."""
        key = self.teacher.key_of(question.body)
        if key in self.refused:
            return Outcome(question.row, question.at, self.refused[key])
        kept = self.answers.get(key)
        if kept is None:
            return None
        if key in self.counted:  # the same question for two rows is paid for once
            kept = Kept(kept.body, 0.0, kept.usage)
        self.counted.add(key)
        return self.reader.outcome(question, kept)

    def forget(self) -> None:
        """Drop the answers that were no use, so that they are asked for anew."""
        for question in self.questions:
            key = self.teacher.key_of(question.body)
            kept = self.answers.get(key)
            if kept is not None and self.reader.fault(bytes(kept.body)):
                self.answers.drop(key)


def opened(section: TeacherSection, path: str) -> Teacher:
    """The teacher, ready to be asked. Raises ConfigError."""
    if path:
        from stepwell.engines.embedded import Embedded  # noqa: PLC0415 - llama.cpp

        gguf = EmbeddedEngine(path=path, threads=1, slots=section.at_once, context_tokens=section.max_tokens + 1024)
        return Teacher(Embedded("teacher", gguf), section.name, free, section.max_tokens)
    # Whether a call that failed was paid is seen call by call: the engine itself must not try again.
    config = HttpEngine(url=section.url, model=section.model, retries=0, breaker_failures=NO_BREAKER)
    usd_of = free if section.price == "free" else prices.price_of(prices.load(), section.price or section.model).of
    key = secret(section.key_env, field="teacher.key_env")
    batches = Batches(section.url, key) if section.batches else None
    engine = Http("teacher", config, bearer(key))
    return Teacher(engine, section.model, usd_of, section.max_tokens, batches, section.url)
