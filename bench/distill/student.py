"""The models that ship, as they serve: the GGUF files of teacher and student in the embedded engine, on E2E's test set.

Each answers every test prompt greedily; an answer that the slot checker complains about is drawn again, at most so
often as the specialist step would (`TRIES`), and all of it is counted as the student's cost. BLEU and both slot error
rates are of the answers after that; `student_bleu_gap` is the upper bound (95 %, paired bootstrap over prompts) of
teacher minus student. The price of 1,000 answers has everything in it that made the student (`provenance.json` of its
folder says what its campaign took) and its teacher, spread over ten million answers.

    STEPWELL_DATA=... python -m bench.distill.student
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from bench.distill import scores
from stepwell.campaigns.cost import NUM_ANSWERS, Cost, cpu_s, economy
from stepwell.config import EmbeddedEngine
from stepwell.engines.embedded import Embedded
from stepwell.engines.talk import ask
from stepwell.ledger import prices
from stepwell.quality.verify import verifier
from stepwell.types import Usage

TEACHER, STUDENT = Path("models/house-writer"), Path("models/house-student")
TRIES = 4
TEMPERATURE = 0.7
SIDE_BY_SIDE = 16
MAX_TOKENS = 110
PRICED = "house-writer"
TEACHER_CPU_S = 94 * 60 * 4
"""The house writer's own training at most: 94 minutes on three to four cores, as its card says."""


class Answered(Struct, frozen=True):
    """A model's answers, and what they took."""

    texts: list[str]
    cpu_s: float
    tries: int
    usage: Usage


def measure(*, quick: bool = False) -> dict[str, Any]:
    """The figures; a quick run is no shorter: it takes a minute."""
    del quick
    prompts = list(scores.references("test"))
    teacher = asyncio.run(answered(file_of(TEACHER), prompts, tries=1))
    alone = asyncio.run(answered(file_of(STUDENT), prompts, tries=1))
    student = asyncio.run(answered(file_of(STUDENT), prompts, tries=TRIES))
    found = {name: scores.scored(each.texts) for name, each in told(teacher, alone, student)}
    for name, score in found.items():
        errors = f"slot errors {score.ser:.2%} ({score.ser_apart:.2%} apart)"
        print(f"{name}: BLEU {score.bleu:.2f}, {errors}", flush=True)
    gaps = scores.gaps([found["teacher"]], [found["student"]])
    return {
        "teacher_bleu": round(found["teacher"].bleu, 2),
        "teacher_ser": round(found["teacher"].ser, 4),
        "teacher_ser_apart": round(found["teacher"].ser_apart, 4),
        "student_bleu": round(found["student"].bleu, 2),
        "student_bleu_gap": round(float(np.quantile(gaps, 0.975)), 2),
        "student_bleu_gap_mean": round(found["teacher"].bleu - found["student"].bleu, 2),
        "student_ser": round(found["student"].ser, 4),
        "student_ser_apart": round(found["student"].ser_apart, 4),
        "student_ser_less_teacher": round(found["student"].ser - found["teacher"].ser, 4),
        "student_greedy_ser": round(found["student, one try"].ser, 4),
        "student_tries": round(student.tries / len(prompts), 3),
        **cost(student, len(prompts)),
    }


def told(teacher: Answered, alone: Answered, student: Answered) -> list[tuple[str, Answered]]:
    """Names for the table."""
    return [("teacher", teacher), ("student, one try", alone), ("student", student)]


def file_of(folder: Path) -> Path:
    """The one file that serves."""
    (file,) = folder.glob("*.gguf")
    return file


async def answered(file: Path, prompts: Sequence[str], *, tries: int) -> Answered:
    """Every prompt's answer; what the checker complains about is drawn again."""
    engine = Embedded(file.stem, EmbeddedEngine(path=str(file), threads=1, slots=SIDE_BY_SIDE))
    verify, room = verifier("slots"), asyncio.Semaphore(SIDE_BY_SIDE)
    usages: list[Usage] = []

    async def one(prompt: str) -> str:
        text = ""
        for number in range(tries):
            fields = {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS, "seed": number}
            temperature = TEMPERATURE if number else 0
            async with room:
                said, usage = await ask(engine, {**fields, "model": file.stem, "temperature": temperature})
            usages.append(usage or Usage(0, 0))
            text = text or said.strip()
            if not verify(prompt, said):
                return said.strip()
        return text

    await ask(engine, {"model": file.stem, "messages": [{"role": "user", "content": prompts[0]}], "max_tokens": 8})
    began_s = cpu_s()
    try:
        texts = await asyncio.gather(*map(one, prompts))
        took_s = cpu_s() - began_s
    finally:
        await engine.close()
    every = Usage(sum(each.input_tokens for each in usages), sum(each.output_tokens for each in usages))
    return Answered(list(texts), took_s, len(usages), every)


def cost(student: Answered, num: int) -> dict[str, Any]:
    """What a thousand answers cost, and after how many the student has paid for itself."""
    table = prices.load()
    stages = json.loads((STUDENT / "provenance.json").read_text(encoding="utf-8"))["costs"].values()
    making = Cost(TEACHER_CPU_S + sum(each["cpu_s"] for each in stages), usd=sum(each["usd"] for each in stages))
    each = Usage(student.usage.input_tokens // num, student.usage.output_tokens // num)
    large = prices.price_of(table, PRICED).of(each)
    found = economy(making, student.cpu_s / num, large, table.cpu_hour_usd)
    return {
        "usd_per_1k_answers": round(found.usd_per_1k_answers, 6),
        "answer_cpu_ms": round(1000 * student.cpu_s / num, 3),
        "making_usd": round(found.making_usd, 4),
        "large_usd_per_1k": round(1000 * large, 4),
        "break_even_answers": found.break_even_answers,
        "amortised_over": NUM_ANSWERS,
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
