"""Completions that a judge finds wrong beside another answer to the same prompt: a person's, or the generator's own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes

from stepwell.errors import DistillError, StepwellError
from stepwell.quality.judge import Embed, Verdict
from stepwell.quality.judge_model import Ask, keyed_marks, new_marks
from stepwell.quality.judge_model import Said as JudgeSaid
from stepwell.quality.judges import named
from stepwell.synth.complete import answered, body_for, said, side_by_side
from stepwell.synth.filters import Deaths
from stepwell.synth.generator import Paid, check
from stepwell.synth.row import Row
from stepwell.synth.slots import facts_key

KEY, KEY_BYTES = "marks.key", 32
FRESH_SEED = 1_000_000
"""Far from the seeds of a row's own completions."""


async def judged(rows: Sequence[Row], name: str, paid: Paid | None, embed: Embed | None) -> Deaths:
    """Rows that the judge finds wrong, or cannot tell. A row that stands beside no other answer is compared with "".

    Raises ConfigError, BudgetReached, EngineError; DistillError where the judge has a verdict on none.
    """
    failed: list[StepwellError] = []
    marks = keyed_marks(secret(paid.answers.folder / KEY)) if paid else new_marks
    judge = named(name, embed=embed, ask=asking(paid, failed) if paid else None, marks=marks)
    done = [at for at, row in enumerate(rows) if row.completion and not row.is_real]
    others = await beside(rows, done, paid if "model" in name.split("+") else None)

    async def verdict(at: int) -> Verdict:
        told = await judge(rows[at].prompt, rows[at].completion, others[at])
        if failed:  # a judge takes it for no verdict, and the row would die of it
            raise failed[0]
        return told

    verdicts = await side_by_side(paid.section.concurrency if paid else 1, done, verdict)
    if done and all(told.right is None for told in verdicts.values()):
        raise DistillError(f"synth.filters.judge: {name} has no verdict on any row: {verdicts[done[0]].why}")
    return {at: told.why for at, told in verdicts.items() if not told.right}


def secret(file: Path) -> bytes:
    """A key of our own, made once: by it a judge's marks are the same when a run goes on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), open(file, "xb", opener=private) as out:
        out.write(token_bytes(KEY_BYTES))
    return file.read_bytes()


def private(path: str, flags: int) -> int:
    """Open a file that only its owner may read."""
    return os.open(path, flags, 0o600)


async def beside(rows: Sequence[Row], done: Sequence[int], paid: Paid | None) -> dict[int, str]:
    """For each row another answer to its prompt: a person's where there is one, else a new one of the generator."""
    people: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.is_real and row.completion:
            people[facts_key(row.prompt) or row.prompt].append(row.completion)
    others = {at: people[facts_key(rows[at].prompt) or rows[at].prompt][:1] for at in done}
    alone = [at for at in done if not others[at]] if paid else []
    if paid and alone:
        bodies = {at: body_for(paid, rows[at], FRESH_SEED) for at in alone}
        answers = await answered(paid, bodies.values())
        others |= {at: [answers[body].text] for at, body in bodies.items()}
    return {at: each[0] if each else "" for at, each in others.items()}


def asking(paid: Paid, failed: list[StepwellError]) -> Ask:
    """The generator as the model that judges; what it fails of is noted."""

    async def ask(instructions: str, text: str) -> JudgeSaid:
        try:
            answer = await said(paid, check(paid, text, instructions))
        except StepwellError as error:
            failed.append(error)
            raise
        return JudgeSaid(answer.text, answer.usd)

    return ask
