"""One question to a teacher that costs money: its highest price is set aside first, and its answer is kept for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from msgspec import Struct

from stepwell.engines.answers import Answers, Budget, Kept, key_of
from stepwell.engines.batches import Batches
from stepwell.engines.http import worth_retrying
from stepwell.engines.wire import WentAway
from stepwell.errors import EngineBadReply, EngineError, EngineRefusal, EngineUnavailable
from stepwell.protocols import Engine
from stepwell.types import Caller, Request, Usage

CALLER = Caller("campaign", "campaign")
TRIES, PAUSE_S = 3, 0.1


class Teacher(Struct, frozen=True):
    """A large model, and what its answers cost."""

    engine: Engine
    model: str
    usd_of: Callable[[Usage | None], float]
    max_output_tokens: int
    """How long an answer may be."""
    batches: Batches | None = None
    """Asked first, where the teacher has a batch interface."""
    origin: str = ""
    """The server's URL, where another one may have a model of this name; empty: answers are kept by model alone."""

    def key_of(self, body: bytes) -> str:
        """The name of a question to this teacher."""
        return key_of(body, self.origin)

    def most_usd(self, num_bytes: int) -> float:
        """The most that a question can cost: no token is shorter than a byte, no answer longer than its limit."""
        return self.usd_of(Usage(num_bytes, self.max_output_tokens))


def free(_: Usage | None) -> float:
    """What an answer of a model of one's own costs."""
    return 0.0


async def asked(teacher: Teacher, body: bytes, answers: Answers, budget: Budget) -> Kept:
    """The answer to a question, from the folder where it was paid for before.

    Raises BudgetReached before a call that could pass the budget; EngineError, after which nothing is owed where the
    server surely charges nothing.
    """
    key = teacher.key_of(body)
    kept = answers.get(key)
    if kept is None:
        await asyncio.to_thread(answers.begin, key, teacher.most_usd(len(body)), budget)
        try:
            kept = await paid(teacher, key, body)
        except EngineError as error:
            if is_free(error):
                answers.end(key, 0.0)
            raise
        await asyncio.to_thread(answers.keep, key, kept)
    return kept


async def asked_again(teacher: Teacher, body: bytes, answers: Answers, budget: Budget) -> Kept:
    """`asked`, and again where another try may fare better: a call of its own, since the one before may be paid for.

    For an engine that does not try again itself. Raises what `asked` raises.
    """
    for attempt in range(TRIES):
        try:
            return await asked(teacher, body, answers, budget)
        except EngineError as error:
            if attempt == TRIES - 1 or not worth_retrying(error):
                raise
            wished_s = error.retry_after_s if isinstance(error, EngineRefusal) else None
            await asyncio.sleep(PAUSE_S * 2**attempt if wished_s is None else wished_s)
    raise EngineUnavailable("no try is allowed", engine=teacher.engine.name)


def is_free(error: EngineError) -> bool:
    """Say whether a failed call surely costs nothing: it was refused, or never reached the server."""
    return isinstance(error, EngineRefusal) or (
        isinstance(error, EngineUnavailable) and not isinstance(error, WentAway)
    )


async def paid(teacher: Teacher, name: str, body: bytes) -> Kept:
    """Ask, and price the answer; where the server counts no tokens, as if it were the longest."""
    reply, usage = await ask(teacher.engine, teacher.model, name, body)
    usage = usage or Usage(len(body), teacher.max_output_tokens, estimated=True)
    try:
        raw = msgspec.json.decode(reply, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise EngineBadReply(f"not JSON: {error}", engine=teacher.engine.name) from error
    return Kept(raw, teacher.usd_of(usage), usage)


async def ask(engine: Engine, model: str, name: str, body: bytes) -> tuple[bytes, Usage | None]:
    """One question to an engine, its whole reply. Raises EngineError."""
    request = Request(id=name[:16], kind="chat", caller=CALLER, model=model, body=body, canonical=body)
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            return chunk.data, chunk.usage
    raise EngineBadReply("no reply", engine=engine.name)
