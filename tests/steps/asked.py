"""A cache over an engine that does as it is told, without a network: for tests of the step and what is below it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import Terms
from stepwell.cache.tags import Tags
from stepwell.errors import EngineError
from stepwell.gateway import openai
from stepwell.protocols import Store
from stepwell.quality.promise import rule as promise_rule
from stepwell.steps.below import Below, Rule
from stepwell.steps.cache import Cache
from stepwell.steps.descend import descend
from stepwell.steps.large import Large
from stepwell.store.memory import Memory
from stepwell.types import Answer, Caller, Chunk, Outcome, Request, Settled, Usage

CALLER = Caller("acme", "anna")
ASK: dict[str, Any] = {"model": "well", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
DONE = b"data: [DONE]\n\n"
KEEP = Rule(route=b"r", share="principal", keep=True, keep_sampled=False, terms=Terms(60.0), tags=("model:well",))


def chat(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    told = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps({**told, "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}}).encode()


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    told = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def asked(*, id: str = "1", caller: Caller = CALLER, headers: dict[bytes, bytes] | None = None, **more: Any) -> Request:  # noqa: A002
    body = json.dumps({**ASK, **more}).encode()
    return openai.parse("chat", body, id=id, caller=caller, started_s=0.0, headers=headers or {})


@dataclass
class Engine:
    """Says its words; a stream waits at `gate` before every event but the first, a JSON reply before its only one."""

    name: str = "engine"
    words: Sequence[str] = ("Deep, ", "I ", "say.")
    gate: asyncio.Semaphore | None = None
    error: EngineError | None = None
    dies_after: int = -1
    calls: list[Request] = field(default_factory=list)
    num_stopped: int = 0

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        self.calls.append(request)
        number, done = len(self.calls), False
        try:
            if self.error is not None and self.dies_after < 0:
                raise self.error
            if not request.stream:
                if self.gate is not None:
                    await self.gate.acquire()
                done = True
                yield Chunk(chat(f"{''.join(self.words)} #{number}"), Usage(5, 3), last=True)
                return
            for place, word in enumerate(self.words):
                if self.gate is not None and place:
                    await self.gate.acquire()
                if place == self.dies_after and self.error is not None:
                    raise self.error
                yield Chunk(event(word))
            done = True
            yield Chunk(b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\n', Usage(5, 3))
            yield Chunk(DONE, last=True)
        finally:
            self.num_stopped += not done

    async def close(self) -> None:
        """Nothing to give back."""


@dataclass
class Reply:
    """What one caller was given."""

    request: Request
    outcome: Outcome
    body: bytes = b""
    complete: bool = False
    error: Exception | None = None

    @property
    def how(self) -> tuple[str, str]:
        last = self.outcome.visits[-1]
        return last.step, last.reason


class Desk:
    """One process: the cache, the engine, and callers who come and go."""

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        store: Store | None = None,
        rule: Rule = KEEP,
        lease_s: float = 0.0,
        max_bytes: int = 1_000_000,
    ) -> None:
        self.engine = engine or Engine()
        self.entries: list[Settled] = []
        self.tags = Tags(store, keep_s=1000.0, shared=store is not None)
        memory: Memory[Held] = Memory(10_000_000)
        self.exact = Exact(memory, store, self.tags)
        self.below = Below(
            self.exact, lambda _model, _usage: 0.5, max_bytes=max_bytes, lease_s=lease_s, after=(self.entries.append,)
        )
        large = Large({"well": [self.engine]})
        self.cache = Cache(self.below, {"well": rule}, lambda request: descend(request, (large,), promise_rule))
        self.steps = (self.cache, large)

    async def serve(self, request: Request) -> Reply:
        """Descend, read to the end, settle: as `gateway/answer.py` does."""
        reply = Reply(request, Outcome(None, ()))
        usage, form = None, "json"
        try:
            reply.outcome = outcome = await descend(request, self.steps, promise_rule)
            answer = outcome.answer
            reply.error = outcome.error
            if answer is not None:
                reply.body, usage, form = answer.body, answer.usage, answer.form
                reply.complete = answer.chunks is None
                if answer.chunks is not None:
                    usage = await self.read(reply, answer)
        finally:
            done = Settled(
                request=request,
                outcome=reply.outcome,
                form=form,  # type: ignore[arg-type]
                body=reply.body,
                usage=usage,
                complete=reply.complete,
                status=200 if reply.complete else 499,
                seconds=0.1,
            )
            self.cache.settle(done)
            self.entries.append(done)
        return reply

    async def read(self, reply: Reply, answer: Answer) -> Usage | None:
        usage = answer.usage
        try:
            async for chunk in answer.chunks:
                reply.body += chunk.data
                usage = chunk.usage or usage
                reply.complete = chunk.last
        except EngineError as error:
            reply.error = error
        finally:
            await answer.chunks.aclose()
        return usage

    def begin(self, request: Request) -> asyncio.Task[Reply]:
        return asyncio.ensure_future(self.serve(request))

    async def close(self) -> None:
        await self.below.close()


async def turns(number: int = 20) -> None:
    """Let everything that can go on go on."""
    for _ in range(number):
        await asyncio.sleep(0)
