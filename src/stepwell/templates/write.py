"""Writing: a teacher is asked once for each structure and locale, and once more for what the check refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec
from msgspec import Struct

from stepwell.engines.batches import Batches
from stepwell.errors import EngineBadReply
from stepwell.ledger.prices import Price
from stepwell.protocols import Engine
from stepwell.templates import prompt
from stepwell.templates.answers import Answers, Budget, Kept, Spent, key_of
from stepwell.templates.batch import batched, most_usd
from stepwell.templates.check import check
from stepwell.templates.prompt import MAX_OUTPUT_TOKENS, Brief, Task
from stepwell.templates.schema import Schema
from stepwell.types import Caller, Request, Usage

CALLER = Caller("campaign", "campaign")
Watch = Callable[[Task, Spent], None]
"""Told after each task, with what was spent so far."""


class Teacher(Struct, frozen=True):
    """A large model with its price."""

    engine: Engine
    model: str
    price: Price
    batches: Batches | None = None
    """Asked first, where the teacher has a batch interface."""


async def write(
    teacher: Teacher,
    schema: Schema,
    tasks: Sequence[Task],
    brief: Brief,
    *,
    answers: Answers,
    budget: Budget,
    watch: Watch = lambda _task, _spent: None,
) -> dict[Task, list[str]]:
    """Sources for each task, checked or not; at most two calls a task, none for what was answered before.

    Raises BudgetReached before a call that could pass the budget, EngineError where the teacher cannot be reached;
    what was answered until then is kept.
    """
    questions = {task: prompt.first(schema, task, brief, teacher.model) for task in tasks}
    await _together(teacher, list(questions.values()), answers, budget)
    written, again = {}, {}
    for task, question in questions.items():
        written[task] = await _asked(teacher, question, answers, budget)
        verdicts = check(schema, task.locale, task.name, written[task])
        refused = [each for each in verdicts if not each.kept and each.gate != "alike"]
        if refused or not written[task]:
            again[task] = prompt.repair(schema, task, brief, teacher.model, refused)
        watch(task, answers.spent())
    await _together(teacher, list(again.values()), answers, budget)
    for task, question in again.items():
        written[task] += await _asked(teacher, question, answers, budget)
    return written


async def _together(teacher: Teacher, questions: Sequence[bytes], answers: Answers, budget: Budget) -> None:
    """Ask all at once, where the teacher can be asked so."""
    if teacher.batches is not None and questions:
        await asyncio.to_thread(batched, teacher.batches, teacher.price, questions, answers, budget)


async def _asked(teacher: Teacher, body: bytes, answers: Answers, budget: Budget) -> list[str]:
    """The sources in the teacher's answer, from the folder where it was paid for before."""
    key = key_of(body)
    kept = answers.get(key)
    if kept is None:
        answers.begin(key, most_usd(teacher.price, len(body)), budget)
        kept = await _paid(teacher, key, body)
        answers.keep(key, kept)
    return prompt.answered(bytes(kept.body))


async def _paid(teacher: Teacher, key: str, body: bytes) -> Kept:
    reply, usage = await ask(teacher.engine, teacher.model, key, body)
    usage = usage or Usage(len(body), MAX_OUTPUT_TOKENS, estimated=True)
    try:
        raw = msgspec.json.decode(reply, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise EngineBadReply(f"not JSON: {error}", engine=teacher.engine.name) from error
    return Kept(raw, teacher.price.of(usage), usage)


async def ask(engine: Engine, model: str, name: str, body: bytes) -> tuple[bytes, Usage | None]:
    """One question to an engine, its whole reply. Raises EngineError."""
    request = Request(id=name[:16], kind="chat", caller=CALLER, model=model, body=body, canonical=body)
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            return chunk.data, chunk.usage
    raise EngineBadReply("no reply", engine=engine.name)
