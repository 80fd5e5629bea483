"""`stepwell explain REQUEST.json`: send one request down the steps and print every visit."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from stepwell import config as configuration
from stepwell.config import Config
from stepwell.errors import BadRequest
from stepwell.gateway import admit, openai
from stepwell.gateway.reply import Sent, keep, settled
from stepwell.steps.descend import descend
from stepwell.types import Caller, Chunk, Defer, Kind, Outcome, Proposal, Request, Settled
from stepwell.well import Well, build

if TYPE_CHECKING:
    from argparse import _SubParsersAction


class Dry:
    """The last step of a dry run: here somebody would have been asked."""

    name = "dry run"

    async def propose(self, request: Request) -> Proposal | Defer:
        """Cost nothing."""
        return Defer(f"no engine of {request.model!r} is asked")


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("explain", help="print the visits of one request", description=__doc__)
    parser.add_argument("request", type=Path, help="a file with the body of the request; - reads standard input")
    parser.add_argument("--config", type=Path, default=Path("stepwell.toml"), help="default: stepwell.toml")
    parser.add_argument("--tenant", help="ask as this tenant's first key; default: the first key of the file")
    parser.add_argument("--dry-run", action="store_true", help="stop before the large step: cost nothing")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Explain one request; 1 where it was not answered."""
    body = sys.stdin.buffer.read() if str(given.request) == "-" else read(given.request)
    config = configuration.load(given.config)
    caller = asking(config, given.tenant)
    request, outcome, told = asyncio.run(explained(config, body, caller, dry=given.dry_run))
    print_visits(request, outcome, told)
    return 0 if outcome.answer or given.dry_run else 1


def read(path: Path) -> bytes:
    """Read the request. Raises BadRequest where there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read ({error.strerror})") from error


def kind_of(body: bytes) -> Kind:
    """What is asked, from the field that asks it."""
    fields = openai.decoded(body)
    kinds = [kind for kind, name in openai.ASKS.items() if name in fields]
    if not kinds:
        raise BadRequest(f"asks nothing: give one of {', '.join(openai.ASKS.values())}")
    return kinds[0]


def asking(config: Config, tenant: str | None) -> Caller:
    """Who asks: the first key of the file, or of one tenant."""
    keys = [key for key in config.keys if tenant in (None, key.tenant)]
    if keys:
        return Caller(keys[0].tenant, keys[0].principal or keys[0].env)
    if tenant is not None:
        raise BadRequest(f"no key belongs to a tenant {tenant!r}")
    return admit.ANYBODY


async def explained(config: Config, body: bytes, caller: Caller, *, dry: bool) -> tuple[Request, Outcome, Settled]:
    """Descend, read the answer to its end, and settle, as the gateway would."""
    well = build(config)
    try:
        if well.meaning is not None:
            await well.meaning.ready()
        request = openai.parse(kind_of(body), body, id=well.door.new_id(), caller=caller, started_s=perf_counter())
        admit.model(request.model, well.door.stairs)
        outcome, told = await answered(well, request, dry=dry)
    finally:
        await well.close()
    return request, outcome, told


async def answered(well: Well, request: Request, *, dry: bool = False) -> tuple[Outcome, Settled]:
    """One request from its descent to its settlers; `dry`: without the last step and without them."""
    steps = well.door.stairs[request.model]
    outcome = await descend(request, (*steps[:-1], Dry()) if dry else steps, well.door.rule)
    sent = Sent()
    if outcome.answer is not None:
        chunks = outcome.answer.chunks
        keep(sent, Chunk(outcome.answer.body, outcome.answer.usage, last=chunks is None), well.door.keep_bytes)
        if chunks is not None:
            async for chunk in chunks:
                keep(sent, chunk, well.door.keep_bytes)
            await chunks.aclose()
    told = settled(request, outcome, sent, perf_counter() - request.started_s)
    for settle in () if dry else well.door.settlers:
        settle(told)
    return outcome, told


def print_visits(request: Request, outcome: Outcome, told: Settled) -> None:
    """One line a visit, then the answer."""
    print(f"{request.kind} request for {request.model!r} by {request.caller.tenant}/{request.caller.principal}")
    print(f"canonical form: {len(request.canonical)} bytes, {'sampled' if request.sampled else 'not sampled'}\n")
    for number, visit in enumerate(outcome.visits, 1):
        cost = f", {visit.usd:.9f} USD" if visit.usd else ""
        print(f"{number}. {visit.step:<12}{visit.verdict:<10}{visit.seconds * 1000:9.3f} ms  {visit.reason}{cost}")
    if outcome.answer is not None:
        usage = told.usage
        tokens = f"{usage.input_tokens} + {usage.output_tokens} tokens" if usage else "tokens unknown"
        saved = f", saved {outcome.answer.saved_usd:.9f} USD" if outcome.answer.saved_usd else ""
        print(f"\nanswered by {outcome.visits[-1].step} ({outcome.answer.engine}): {tokens}{saved}\n")
        print(told.body.decode(errors="replace"))
    elif outcome.error is not None:
        print(f"\nnot answered: {outcome.error}")
