"""What a model file says when it is served: the embedded engine, asked as callers ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from stepwell.campaigns.cost import cpu_s
from stepwell.config import EmbeddedEngine
from stepwell.engines.embedded import Embedded
from stepwell.engines.talk import ask
from stepwell.types import Usage

SIDE_BY_SIDE = 64

Watch = Callable[[int], object]
"""Told how many prompts are answered."""


class Served(Struct, frozen=True):
    """Texts in the order of the prompts, "" where one was cut off, and what giving them took."""

    texts: list[str]
    cpu_s: float
    usage: Usage

    @property
    def answer_cpu_s(self) -> float:
        """Processor time of one answer."""
        return self.cpu_s / max(1, len(self.texts))

    @property
    def answer_usage(self) -> Usage:
        """Tokens of one answer, upwards."""
        num = max(1, len(self.texts))
        return Usage(-(-self.usage.input_tokens // num), -(-self.usage.output_tokens // num))


def served(file: Path, prompts: Sequence[str], *, max_tokens: int, watch: Watch) -> Served:
    """Every prompt's answer at temperature 0. Raises ConfigError and EngineError."""
    return asyncio.run(answers(file, prompts, max_tokens, watch))


async def answers(file: Path, prompts: Sequence[str], max_tokens: int, watch: Watch) -> Served:
    """Load the file, ask everything, free it."""
    engine = Embedded("served", EmbeddedEngine(path=str(file), threads=1))
    room = asyncio.Semaphore(SIDE_BY_SIDE)
    usages: list[Usage] = []

    async def one(prompt: str) -> str:
        fields = {
            "model": engine.name,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        async with room:
            text, usage = await ask(engine, fields)
        usages.append(usage or Usage(0, 0))
        watch(len(usages))
        return text.strip()

    began_s = cpu_s()
    try:
        texts = await asyncio.gather(*map(one, prompts))
        used_s = cpu_s() - began_s
    finally:
        await engine.close()
    tokens_in, tokens_out = sum(each.input_tokens for each in usages), sum(each.output_tokens for each in usages)
    return Served(list(texts), used_s, Usage(tokens_in, tokens_out))
