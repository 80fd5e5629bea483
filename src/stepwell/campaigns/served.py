"""What a model file says when it is served: the embedded engine, asked as callers ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.campaigns.cost import cpu_s
from stepwell.config import EmbeddedEngine
from stepwell.engines.embedded import Embedded
from stepwell.engines.texts import answered_text
from stepwell.protocols import Engine
from stepwell.types import Caller, Request, Usage

CALLER = Caller("stepwell", "distill")
SIDE_BY_SIDE = 64

Watch = Callable[[int], object]
"""Told how many more prompts are answered."""


class Served(Struct, frozen=True):
    """Texts in the order of the prompts, and what giving them took."""

    texts: list[str]
    cpu_s: float
    usage: Usage

    @property
    def answer_cpu_s(self) -> float:
        """Processor time of one answer."""
        return self.cpu_s / max(1, len(self.texts))


def served(
    file: Path, prompts: Sequence[str], *, max_tokens: int, threads: int = 1, watch: Watch | None = None
) -> Served:
    """Every prompt's answer at temperature 0. Raises ConfigError and EngineError."""
    return asyncio.run(all_of(file, prompts, max_tokens, threads, watch or (lambda _: None)))


async def all_of(file: Path, prompts: Sequence[str], max_tokens: int, threads: int, watch: Watch) -> Served:
    """Load the file, ask everything, free it."""
    engine = Embedded("served", EmbeddedEngine(path=str(file), threads=threads))
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(prompt: str) -> tuple[str, Usage]:
        async with gate:
            told = await ask(engine, prompt, max_tokens)
        watch(1)
        return told

    began_s = cpu_s()
    try:
        told = await asyncio.gather(*map(one, prompts))
        used_s = cpu_s() - began_s
    finally:
        await engine.close()
    tokens_in, tokens_out = (
        sum(each) for each in zip(*((u.input_tokens, u.output_tokens) for _, u in told), strict=True)
    )
    return Served([text for text, _ in told], used_s, Usage(tokens_in, tokens_out))


async def ask(engine: Engine, prompt: str, max_tokens: int) -> tuple[str, Usage]:
    """One prompt as a user's message; "" where the answer is no text."""
    asked = {
        "model": "served",
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    body = msgspec.json.encode(asked)
    request = Request(id="served", kind="chat", caller=CALLER, model="served", body=body, canonical=body, sampled=False)
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            text = answered_text(chunk.data, "json", "chat") or ""
            return text.strip(), chunk.usage or Usage(0, 0)
    return "", Usage(0, 0)
