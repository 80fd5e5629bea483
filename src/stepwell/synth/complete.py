"""Prompts are completed: each question is asked once, several side by side, and every row says what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import TypeVar

from stepwell.engines.asking import asked_again
from stepwell.errors import DistillError, EngineRefusal
from stepwell.synth.generator import Paid, question
from stepwell.synth.reply import Said, no_answer, read, reasons
from stepwell.synth.row import Row, made

FAULT = "written"
"""The filter's name under which a row says why it was not completed."""
FIRST = 16
"""Prompts asked first: where none of them is answered, no more are asked."""
TRY_ELSEWHERE = (401, 402, 403, 404, 408, 429)
"""Refusals of the account or the moment, not of a prompt."""
K = TypeVar("K")
V = TypeVar("V")


async def said(paid: Paid, body: bytes) -> Said:
    """Ask, or read what was answered before. Raises BudgetReached, EngineError."""
    try:
        kept = await asked_again(paid.teacher, body, paid.answers, paid.budget)
    except EngineRefusal as error:
        if error.status >= 500 or error.status in TRY_ELSEWHERE:  # noqa: PLR2004
            raise
        return Said("", f"the server refused ({error.status})")
    paid.note(kept.usd)
    return read(kept, paid.revision)


async def side_by_side(num: int, jobs: Iterable[K], work: Callable[[K], Awaitable[V]]) -> dict[K, V]:
    """Do each job once, so many at a time. After an error, what is on its way still arrives, and nothing new begins."""
    left = iter(dict.fromkeys(jobs))
    done: dict[K, V] = {}
    failed = False

    async def go_on() -> None:
        nonlocal failed
        for job in left:
            if failed:
                return
            try:
                done[job] = await work(job)
            except BaseException:
                failed = True
                raise

    ended = await asyncio.gather(*(go_on() for _ in range(num)), return_exceptions=True)
    for error in ended:
        if error is not None:
            raise error
    return done


async def answered(paid: Paid, bodies: Iterable[bytes], watch: Callable[[], None] = lambda: None) -> dict[bytes, Said]:
    """Ask each question once. Raises BudgetReached, EngineError."""

    async def ask(body: bytes) -> Said:
        answer = await said(paid, body)
        watch()
        return answer

    return await side_by_side(paid.section.concurrency, bodies, ask)


async def completed(paid: Paid, rows: Sequence[Row]) -> list[Row]:
    """Each row with its completion, or with the reason why it has none. Raises BudgetReached, EngineError.

    Raises DistillError where none of the first FIRST prompts is answered: no more is paid for.
    """
    jobs = [(row, number, body_for(paid, row, number)) for row in rows for number in range(paid.section.num)]
    bodies = list(dict.fromkeys(body for _, _, body in jobs))
    done = count(1)

    def watch() -> None:
        paid.watch(next(done), len(bodies), paid.answers.spent().usd)

    answers = await answered(paid, bodies[:FIRST], watch)
    faults = [answer.fault or no_answer(answer.text, paid.wanted) for answer in answers.values()]
    if faults and all(faults):
        what = f"the generator answered none of the first {len(faults)} prompts: {reasons(faults)}"
        raise DistillError(f"{what}; see [synth.generator]")
    answers |= await answered(paid, bodies[FIRST:], watch)
    return [with_completion(row, answers[body], paid, seed_of(row, number)) for row, number, body in jobs]


def seed_of(row: Row, number: int) -> int:
    """The seed of a row's completion, by its prompt and number: a resumed run asks the same."""
    return (int(row.prompt_hash[:8], 16) + number) % 2**31


def body_for(paid: Paid, row: Row, number: int) -> bytes:
    """The question that a row's completion is the answer to."""
    text = paid.section.ask.replace("{prompt}", row.prompt)
    return question(paid, text, seed_of(row, number))


def with_completion(row: Row, answer: Said, paid: Paid, seed: int) -> Row:
    """A row with what the generator made of it, and all that is known of that."""
    section = paid.section
    params = {
        **row.params,
        "temperature": section.temperature,
        "max_tokens": section.max_tokens,
        "prompt_seed": row.seed,
    }
    return made(
        row.prompt,
        answer.text,
        source=row.source,
        licence=row.licence,
        slots=row.slots,
        split=row.split,
        generator=paid.name,
        generator_rev=answer.revision or "unknown",
        params=row.params | params,
        seed=seed,
        parents=row.parents,
        generation=row.generation,
        filters={FAULT: answer.fault} if answer.fault else {},
        usd=row.usd + answer.usd,
        tokens_in=answer.usage.input_tokens if answer.usage else 0,
        tokens_out=answer.usage.output_tokens if answer.usage else 0,
    )
