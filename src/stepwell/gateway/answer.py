"""From an Exchange to its reply: admit, parse, descend, deliver, settle. Down once, out once, settle once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from msgspec import Struct

from stepwell.errors import AdmitError, StepwellError
from stepwell.gateway import admit, answers, openai, pages, reply, surface
from stepwell.gateway.exchange import Exchange
from stepwell.gateway.http import Opens
from stepwell.gateway.stored_id import named
from stepwell.protocols import Step
from stepwell.steps.descend import Rule, descend
from stepwell.types import Caller, Outcome, Request, Settler

log = logging.getLogger(__name__)


class Door(Struct, frozen=True, kw_only=True):
    """Everything the front door needs; composed in `well.py`."""

    callers: Mapping[bytes, Caller]
    stairs: Mapping[str, Sequence[Step]]
    rule: Rule
    settlers: Sequence[Settler]
    new_id: Callable[[], str]
    keep_bytes: int
    ready: Callable[[], str]
    """Why the well cannot answer yet; empty where it can."""
    metrics: Callable[[], bytes]
    refused: Callable[[str, int], None]
    """Told of each request that was not let in: code, HTTP status."""
    started_s: int
    worth: reply.Worth | None = None
    public: answers.Public | None = None
    """Where answers for everybody are found, if there are any."""
    surfaces: Mapping[bytes, surface.Surface] = {}
    """The rest of OpenAI's API, by the path it begins with."""
    opens: Opens = lambda *_: None
    """Where bodies go that are too large for memory."""


async def serve(door: Door, exchange: Exchange) -> None:
    """Answer one exchange, whatever happens."""
    try:
        path = exchange.target.partition(b"?")[0]
        kind = openai.PATHS.get(path)
        if door.public is not None and answers.asks(path):
            await answers.show(door, door.public, exchange, path)
        elif kind is None or exchange.method != b"POST":
            await beside(door, exchange, path)
        else:
            who = admit.caller(exchange.headers.get(b"authorization"), door.callers)
            request = openai.parse(
                kind,
                exchange.body,
                id=door.new_id(),
                caller=who,
                started_s=exchange.started_s,
                headers=exchange.headers,
            )
            admit.model(request.model, door.stairs)
            await answer(door, exchange, request)
    except AdmitError as error:
        door.refused(error.code, error.status)
        reply.refuse(exchange, error, door.new_id())
    except Exception:  # a defect of ours must cost one request, not the connection or the worker
        log.exception("a request broke")
        exchange.keep_alive = False
        reply.refuse(exchange, StepwellError("an internal error; the log has it"), door.new_id())


async def beside(door: Door, exchange: Exchange, path: bytes) -> None:
    """Answer what asks for no generation."""
    found = surface.found(door.surfaces, path)
    if found is not None:
        await surface.show(door, exchange, *found)
    elif path in openai.PATHS:
        pages.wrong_method(door, exchange, b"POST")
    else:
        pages.show(door, exchange, path)


async def answer(door: Door, exchange: Exchange, request: Request) -> None:
    """Descend, deliver, and settle: the settlers run even where the caller hangs up half-way."""
    outcome = Outcome(None, ())
    sent = reply.Sent()
    try:
        outcome = await descend(request, door.stairs[request.model], door.rule)
        if request.stored is not None:
            outcome = named(outcome, request.id)
        if outcome.answer is None or outcome.answer.chunks is None:
            reply.whole(exchange, request, outcome, sent)
        else:
            await reply.stream(exchange, request, outcome, sent, keep_bytes=door.keep_bytes, worth=door.worth)
    finally:
        settled = reply.settled(request, outcome, sent, perf_counter() - request.started_s)
        for settle in door.settlers:
            settle(settled)
