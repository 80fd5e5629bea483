"""`stepwell cache warm`: ask the most common questions ahead, so that nobody waits for their answers.

Questions come from a file of requests (JSON lines), or from the log of questions that the store of `[semantic]` keeps:
then `--like` says how they are asked. What is fresh is not asked again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from stepwell import config as configuration
from stepwell.cache.warm import Budget, Frequent, most_common, question
from stepwell.cli import explain
from stepwell.cli.cache.asked import Ask, in_process, through
from stepwell.cli.cache.opened import add_caller, add_config, caller_of, opened, request_of, wordings
from stepwell.cli.cache.told import progress, show
from stepwell.config import Config
from stepwell.engines.texts import last_text
from stepwell.errors import BadRequest, StepwellError
from stepwell.gateway import openai
from stepwell.types import Caller, Request

if TYPE_CHECKING:
    from argparse import _SubParsersAction

log = logging.getLogger(__name__)

LEDGER = "ledger"
STORE = "store"
MOST_FAILURES = 20
"""In a row: then something is wrong with more than a question."""


class Done(Struct):
    """How it went so far."""

    generated: int = 0
    fresh: int = 0
    failed: int = 0
    failed_in_a_row: int = 0
    why: str = ""


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("warm", help="ask the most common questions ahead", description=__doc__)
    parser.add_argument("--from", dest="source", required=True, metavar="FILE|store", help="requests, one a line")
    parser.add_argument("--like", type=Path, metavar="REQUEST.json", help="store: a request; its last text is replaced")
    parser.add_argument("--top", default="10%", metavar="N|N%%", help="of all different questions; default: 10%%")
    parser.add_argument("--gateway", metavar="URL", help="through this gateway; default: in this process")
    parser.add_argument("--key-env", default="", metavar="NAME", help="the variable with a key for --gateway")
    parser.add_argument("--budget-usd", type=float, default=math.inf, metavar="USD")
    parser.add_argument("--max-calls", type=int, default=math.inf, metavar="N")
    parser.add_argument("--most-tokens", type=int, default=4096, metavar="N", help="the longest answer there may be")
    parser.add_argument("--at-once", type=int, default=4, metavar="N", help="questions asked at the same time")
    parser.add_argument("--dry-run", action="store_true", help="say what would be asked, and ask nothing")
    add_caller(parser)
    add_config(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Warm; 1 where a question could not be answered. Raises ConfigError, BadRequest and StoreError."""
    if given.source == LEDGER:
        raise BadRequest("the ledger keeps no texts: give a file of requests, or `--from store --like REQUEST.json`")
    if given.at_once < 1 or given.budget_usd < 0 or given.max_calls < 0:
        raise BadRequest("--at-once is at least 1, and no budget is below 0")
    config = configuration.load(given.config, secrets=not given.dry_run)
    told = asyncio.run(warmed(given, config))
    show(told, as_json=given.json)
    return 1 if told["failed"] else 0


async def warmed(given: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Find the questions, ask them, and say what came of it."""
    caller, began_s = caller_of(given, config), perf_counter()
    questions = await common(given, config, caller)
    budget, done = Budget(given.budget_usd, given.max_calls), Done()
    if not given.dry_run:
        asking = through(given, config) if given.gateway else in_process(config, caller, given.most_tokens)
        async with asking as ask:
            await all_of(questions, ask, budget, done, at_once=given.at_once)
    return {
        "questions": len(questions),
        "asked_so_often": sum(each.count for each in questions),
        "generated": done.generated,
        "fresh_already": done.fresh,
        "failed": done.failed,
        "left_out": len(questions) - done.generated - done.fresh - done.failed,
        "why": done.why,
        "usd": budget.spent_usd,
        "seconds": perf_counter() - began_s,
        "whose": whose(config, questions, caller),
    }


async def common(given: argparse.Namespace, config: Config, caller: Caller) -> list[Frequent]:
    """The most common questions of the source."""
    if given.source != STORE:
        return most_common(in_file(Path(given.source), config, caller), given.top)
    if given.like is None:
        raise BadRequest("--from store needs --like: the log of questions keeps texts, not whole requests")
    like = request_of(given, config, given.like)
    return most_common([each async for each in in_store(config, like)], given.top)


def in_file(file: Path, config: Config, caller: Caller) -> list[tuple[bytes, bytes, int]]:
    """Each line's question. Raises BadRequest with file and line."""
    found = []
    for number, line in enumerate(explain.read(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            body, count = question(line)
            asked = parsed(body, caller)
            if asked.model not in config.routes:
                raise BadRequest(f"no route is called {asked.model!r}", param="model")  # noqa: TRY301 - one place says where
        except BadRequest as error:
            raise BadRequest(f"{file}:{number}: {error}", param=error.param) from error
        found.append((asked.kind.encode() + asked.canonical, body, count))
    return found


async def in_store(config: Config, like: Request) -> AsyncIterator[tuple[bytes, bytes, int]]:
    """The wordings of answers in the store, asked like one request; of those that several lead to, one, as often."""
    known = last_text(like)
    if isinstance(known, str):
        raise BadRequest(f"--like: {known}: its last text cannot be replaced")
    async with opened(config) as at:
        for keys in (await wordings(at.store)).values():
            latest = max(keys, key=lambda each: each.expires_s)
            body = with_question(like, latest.text)
            yield body, body, len(keys)


def with_question(like: Request, text: str) -> bytes:
    """The same request with another last text."""
    fields = openai.decoded(like.canonical)
    if like.kind == "completion":
        fields["prompt"] = text
    else:
        fields["messages"][-1]["content"] = text
    return openai.canonical(fields)


def parsed(body: bytes, caller: Caller) -> Request:
    """A body as a request. Raises BadRequest."""
    return openai.parse(explain.kind_of(body), body, id="warm", caller=caller, started_s=perf_counter())


def whose(config: Config, questions: list[Frequent], caller: Caller) -> str:
    """Who will be given the answers: what nobody else can use was warmed in vain."""
    routes = {openai.decoded(each.body)["model"] for each in questions}
    shares = {config.routes[name].share for name in routes}
    own = f"{caller.tenant}/{caller.principal} alone, on routes whose share is not tenant"
    return own if shares - {"tenant"} else f"everybody of {caller.tenant}"


# --- asking


async def all_of(questions: list[Frequent], ask: Ask, budget: Budget, done: Done, *, at_once: int) -> None:
    """Ask all, so many at once, until they are through or the budget is."""
    waiting, turn = iter(questions), asyncio.Condition()
    with progress(len(questions)) as report:

        async def worker() -> None:
            for each in waiting:
                worst_usd = ask.worst_usd(each.body)
                async with turn:
                    while not done.why and not budget.fits(worst_usd) and budget.num_flying:
                        await turn.wait()
                    if not done.why and not budget.begin(worst_usd):
                        done.why = "the budget is spent"
                    if done.why:
                        return
                await one(each, ask, budget, done, worst_usd)
                report(done.generated + done.fresh + done.failed, f"{done.generated:,} new, {budget.spent_usd:.4f} USD")
                async with turn:
                    turn.notify_all()

        await asyncio.gather(*(worker() for _ in range(at_once)))


async def one(each: Frequent, ask: Ask, budget: Budget, done: Done, worst_usd: float) -> None:
    """Ask one question, and note how it went."""
    how, usd = "failed", 0.0
    try:
        how, usd = await ask.ask(each.body)
        done.failed_in_a_row = 0
    except StepwellError as error:
        done.failed_in_a_row += 1
        if done.failed_in_a_row >= MOST_FAILURES:
            done.why = f"{MOST_FAILURES} failures in a row, the last: {error}"
        log.warning("a question failed: %s", error)
    finally:
        budget.end(worst_usd, usd, called=how != "fresh")
    setattr(done, how, getattr(done, how) + 1)
