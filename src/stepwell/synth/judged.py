"""Completions that a judge finds wrong beside another answer to the same prompt: a person's, or the generator's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from stepwell.engines.answers import Kept, key_of
from stepwell.errors import DistillError
from stepwell.quality.judge import Embed, Judge, Verdict
from stepwell.quality.judge_model import Ask
from stepwell.quality.judge_model import Said as JudgeSaid
from stepwell.quality.judges import named
from stepwell.synth.filters import Deaths
from stepwell.synth.generator import Paid, answered, body_for, question, said
from stepwell.synth.row import Row
from stepwell.synth.slots import facts_key

FRESH_SEED = 1_000_000
"""Far from the seeds of a row's own completions."""


async def judged(rows: Sequence[Row], name: str, paid: Paid | None, embed: Embed | None) -> Deaths:
    """Rows that the judge finds wrong, or cannot tell. A row that stands beside no other answer is compared with "".

    Raises ConfigError, BudgetReached, EngineError; DistillError where the judge has a verdict on none.
    """
    judge = named(name, embed=embed, ask=asking(paid) if paid else None)
    done = [at for at, row in enumerate(rows) if row.completion and not row.is_real]
    others = await beside(rows, done, paid if "model" in name.split("+") else None)
    found: dict[int, str] = {}
    num_told = 0
    for at in done:
        verdict = await once(judge, name, paid, (rows[at].prompt, rows[at].completion, others[at]))
        num_told += verdict.right is not None
        if not verdict.right:
            found[at] = verdict.why
    if done and not num_told:
        raise DistillError(f"synth.filters.judge: {name} has no verdict on any row: {found[done[0]]}")
    return found


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


def asking(paid: Paid) -> Ask:
    """The generator as the model that judges."""

    async def ask(instructions: str, text: str) -> JudgeSaid:
        answer = await said(paid, question(paid.section, paid.teacher.model, text, 0, system=instructions))
        return JudgeSaid(answer.text, answer.usd)

    return ask


async def once(judge: Judge, name: str, paid: Paid | None, texts: tuple[str, str, str]) -> Verdict:
    """A verdict, from where it is kept if it was paid for before."""
    if paid is None:
        return await judge(*texts)
    key = key_of(msgspec.json.encode(("verdict", name, paid.teacher.model, *texts)))
    kept = paid.answers.get(key)
    if kept is None:
        verdict = await judge(*texts)
        paid.answers.keep(key, Kept(msgspec.Raw(msgspec.json.encode(verdict)), 0.0))
        return verdict
    return msgspec.json.decode(kept.body, type=Verdict)
