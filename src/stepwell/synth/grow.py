"""Prompts that a model makes up by examples of real ones: self-instruct (Wang et al. 2023), new by ROUGE-L."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil
from random import Random
from typing import Any

from stepwell.errors import DistillError
from stepwell.synth import slots
from stepwell.synth.complete import answered
from stepwell.synth.generator import Paid, question
from stepwell.synth.recipe import Grown
from stepwell.synth.reply import Said, reasons
from stepwell.synth.rouge import Novelty
from stepwell.synth.row import Row, made

FAULT = "novelty"
"""The filter's name under which a prompt says which other it is too like."""
MAX_ROUNDS = 3
"""So many times the rounds that would do if every prompt were new."""
numbered = re.compile(r"^\s*(?:\d+\s*[.):]|[-*\u2022])\s*(\S.*?)\s*$", re.MULTILINE).findall


async def grown(paid: Paid, real: Sequence[Row], plan: Grown, *, licence: str, seed: int) -> list[Row]:
    """Up to so many new prompts, and, with their fault, those that are too like an earlier one.

    Raises DistillError where the generator makes up none, BudgetReached, EngineError.
    """
    novelty = Novelty(plan.novelty, dict.fromkeys(row.prompt for row in real))
    rows: list[Row] = []
    seen: list[Said] = []
    most, asked = num_rounds(plan) * MAX_ROUNDS, 0
    while asked < most and (left := plan.rows - num_new(rows)) > 0:
        rounds = range(asked, min(most, asked + paid.section.concurrency, asked + ceil(left / plan.batch)))
        asked = rounds.stop
        shown = [shots(real, plan, seed, number) for number in rounds]
        bodies = [body_for(paid, plan, parents, seed + number) for parents, number in zip(shown, rounds, strict=True)]
        answers = await answered(paid, bodies)
        paid.watch(num_new(rows), plan.rows, paid.answers.spent().usd)
        for parents, body, number in zip(shown, bodies, rounds, strict=True):
            seen.append(answers[body])
            rows += children(paid, parents, answers[body], novelty, {"licence": licence, "seed": seed + number})
    if not num_new(rows):
        why = reasons(answer.fault or "nothing new" for answer in seen)
        what = f"the generator made up no new prompt in {len(seen)} rounds ({len(rows)} were like others; {why})"
        raise DistillError(f"{what}: see [synth.grown] and [synth.generator]")
    return cut(rows, plan.rows)


def num_rounds(plan: Grown) -> int:
    """Rounds that would do if every prompt were new."""
    return ceil(plan.rows / plan.batch)


def num_new(rows: Sequence[Row]) -> int:
    """Rows without a fault."""
    return sum(not row.filters for row in rows)


def cut(rows: Sequence[Row], num: int) -> list[Row]:
    """The first rows, up to so many without a fault."""
    kept: list[Row] = []
    for row in rows:
        if row.filters or num > 0:
            kept.append(row)
            num -= not row.filters
    return kept


def shots(real: Sequence[Row], plan: Grown, seed: int, number: int) -> list[Row]:
    """The examples of one round: real rows only, so that what is grown stays of the first generation."""
    chance = Random(seed * 1_000_003 + number)  # noqa: S311 - examples, no secrets
    distinct = list({row.prompt: row for row in real}.values())
    return chance.sample(distinct, min(plan.shots, len(distinct)))


def body_for(paid: Paid, plan: Grown, parents: Sequence[Row], seed: int) -> bytes:
    """The question of one round."""
    examples = "\n".join(f"{at}. {' '.join(row.prompt.split())}" for at, row in enumerate(parents, 1))
    text = (
        f"Examples of requests:\n{examples}\n\nWrite {plan.batch} new requests of the same kind and form, unlike these "
        "and unlike each other. One a line, numbered, and nothing else."
    )
    return question(paid, text, seed % 2**31, system=plan.instructions)


def children(paid: Paid, parents: Sequence[Row], answer: Said, novelty: Novelty, known: Mapping[str, Any]) -> list[Row]:
    """The rows of one round's answer; the round's price is theirs in equal parts."""
    prompts = [prompt.strip("\"'`") for prompt in numbered(answer.text)]
    rows = []
    for prompt in filter(None, prompts):
        near = novelty.take(prompt)
        found = slots.read(prompt)
        rows.append(
            made(
                prompt,
                "",
                source="grown",
                slots=dict(found.slots) if found else {},
                generator=paid.name,
                generator_rev=answer.revision or "unknown",
                params={"novelty": round(1 - near, 4)},
                parents=tuple(parent.id for parent in parents),
                generation=1 + max(parent.generation for parent in parents),
                filters={} if near < novelty.below else {FAULT: f"ROUGE-L {near:.2f} to an earlier prompt"},
                usd=answer.usd / len(prompts),
                **known,
            )
        )
    return rows
