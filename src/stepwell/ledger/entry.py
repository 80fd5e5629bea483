"""One entry a request: every visit, tokens, seconds, USD, and what the large model would have cost."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stepwell.ledger.prices import Price
from stepwell.types import Settled

LARGE = "large"


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """A row of the ledger, in the order of its columns."""

    id: str
    at_s: float
    """Seconds since 1970 at the end of the request."""
    tenant: str
    principal: str
    model: str
    kind: str
    stream: bool
    step: str
    """Where it was answered; empty where it was not."""
    engine: str
    status: int
    complete: bool
    input_tokens: int
    output_tokens: int
    tokens_estimated: bool
    seconds: float
    first_s: float
    """Seconds to the first chunk."""
    usd: float
    large_usd: float
    """What the large model would have cost: the tokens of this answer at the route's large price."""
    large_estimated: bool
    """True unless the large model itself answered and counted."""
    visits: str
    """JSON: a list of [step, verdict, reason, seconds, usd]."""


encode = msgspec.json.Encoder().encode


def entry(settled: Settled, price: Price, at_s: float) -> Entry:
    """Write down one settled request."""
    request, outcome, usage = settled.request, settled.outcome, settled.usage
    visits = outcome.visits
    answered = bool(visits) and visits[-1].verdict == "answered"
    step = visits[-1].step if answered else ""
    worth_usd = price.of(usage) if answered else 0.0
    deferred_usd = sum(visit.usd for visit in visits)
    told = [(visit.step, visit.verdict, visit.reason, round(visit.seconds, 7), visit.usd) for visit in visits]
    return Entry(
        id=request.id,
        at_s=at_s,
        tenant=request.caller.tenant,
        principal=request.caller.principal,
        model=request.model,
        kind=request.kind,
        stream=request.stream,
        step=step,
        engine=outcome.answer.engine if outcome.answer else "",
        status=settled.status,
        complete=settled.complete,
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        tokens_estimated=usage.estimated if usage else False,
        seconds=settled.seconds,
        first_s=sum(visit.seconds for visit in visits),
        usd=deferred_usd + (worth_usd if step == LARGE else 0.0),
        large_usd=worth_usd,
        large_estimated=step != LARGE or bool(usage and usage.estimated),
        visits=encode(told).decode(),
    )
