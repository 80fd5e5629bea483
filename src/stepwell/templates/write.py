"""Writing: a teacher is asked once for each structure and locale, and once more for what the check refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from stepwell.engines.answers import Answers, Budget, Spent
from stepwell.engines.asking import Teacher, asked_again
from stepwell.engines.batched import batched
from stepwell.templates import prompt
from stepwell.templates.check import check
from stepwell.templates.prompt import Brief, Task
from stepwell.templates.schema import Schema

Watch = Callable[[Task, Spent], None]
"""Told after each task, with what was spent so far."""


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
    if teacher.batches is not None:
        await asyncio.to_thread(batched, teacher, questions, answers, budget)


async def _asked(teacher: Teacher, body: bytes, answers: Answers, budget: Budget) -> list[str]:
    """The sources in the teacher's answer, from the folder where it was paid for before."""
    kept = await asked_again(teacher, body, answers, budget)
    return prompt.answered(bytes(kept.body))
