"""Files of a search in the engine that will serve them: loaded again, asked as callers ask, timed in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

from msgspec import Struct

from stepwell.campaigns.cost import HOUR_S, THOUSAND, cpu_s
from stepwell.campaigns.quantize_job import Clock, Job, Results
from stepwell.campaigns.quantize_task import Row, digest
from stepwell.campaigns.served import served
from stepwell.config import EmbeddedEngine
from stepwell.engines.embedded import Embedded
from stepwell.engines.talk import ask
from stepwell.quality.files import sha256_of
from stepwell.quantize.frontier import Speed

ROUNDS = 3
ALONE, TOGETHER = 4, 16
"""Prompts of a round: one after the other, and side by side."""


class Said(Struct, frozen=True):
    """A file's answers to some prompts, and what giving them took."""

    texts: list[str]
    cpu_s: float
    wall_s: float


def answers(job: Job, results: Results, clock: Clock, file: Path, rows: Sequence[Row]) -> Said:
    """What a file says to rows' prompts, greedily. Raises TimeIsUpError."""
    prompts = [each.prompt for each in rows]

    def watch(done: int) -> None:
        clock.check()
        job.tell(done, len(prompts), file.stem)

    def serve() -> Said:
        clock.check()
        begun = perf_counter()
        told = served(file, prompts, max_tokens=job.task.max_tokens, watch=watch)
        return Said(told.texts, told.cpu_s, perf_counter() - begun)

    return results.kept("said", (sha256_of(file), digest(rows), job.task.max_tokens), Said, serve)


def timed(job: Job, results: Results, clock: Clock, files: Mapping[str, Path], cpu_hour_usd: float) -> dict[str, Speed]:
    """What each file takes, all measured in one go so that they can be compared. Raises TimeIsUpError."""
    rows = job.task.search[:TOGETHER]
    prompts = [each.prompt for each in rows]

    def time() -> dict[str, tuple[float, float]]:
        return asyncio.run(rounds(files, prompts, job.task.max_tokens, clock))

    key = (sorted(sha256_of(file) for file in files.values()), digest(rows), ROUNDS)
    found = results.kept("times", key, dict[str, tuple[float, float]], time)
    return {
        name: Speed(1000 * token_s, 1 / answer_s, THOUSAND * answer_s * cpu_hour_usd / HOUR_S)
        for name, (token_s, answer_s) in found.items()
    }


async def rounds(
    files: Mapping[str, Path], prompts: Sequence[str], max_tokens: int, clock: Clock
) -> dict[str, tuple[float, float]]:
    """CPU seconds of a token, one answer at a time, and of an answer, many at a time: medians over rounds in turns."""
    async with AsyncExitStack() as stack:
        engines = {}
        for name, file in files.items():
            clock.check()
            engines[name] = Embedded(name, EmbeddedEngine(path=str(file), threads=1))
            stack.push_async_callback(engines[name].close)
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for turn in range(ROUNDS + 1):  # the first is to warm up
            for name, engine in engines.items():
                clock.check()
                found = (
                    await one_after_the_other(engine, prompts[:ALONE], max_tokens),
                    await together(engine, prompts, max_tokens),
                )
                if turn:
                    seen[name].append(found)
    return {name: (median(a for a, _ in each), median(b for _, b in each)) for name, each in seen.items()}


async def one_after_the_other(engine: Embedded, prompts: Sequence[str], max_tokens: int) -> float:
    """CPU seconds a token written, reading the prompt included."""
    begun, tokens = cpu_s(), 0
    for prompt in prompts:
        tokens += await asked(engine, prompt, max_tokens)
    return (cpu_s() - begun) / max(1, tokens)


async def together(engine: Embedded, prompts: Sequence[str], max_tokens: int) -> float:
    """CPU seconds an answer."""
    begun = cpu_s()
    await asyncio.gather(*(asked(engine, prompt, max_tokens) for prompt in prompts))
    return (cpu_s() - begun) / len(prompts)


async def asked(engine: Embedded, prompt: str, max_tokens: int) -> int:
    """Tokens of an answer."""
    fields = {
        "model": engine.name,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    _, usage = await ask(engine, fields)
    return usage.output_tokens if usage else 0
