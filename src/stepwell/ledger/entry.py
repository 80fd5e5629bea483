"""One entry a request: every visit, tokens, seconds, USD, and what the large model would have cost."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stepwell.errors import StepwellError
from stepwell.ledger.prices import Price
from stepwell.types import Settled, Usage

LARGE = "large"
MOST_TOKENS = 2**40
"""No answer has more: an engine that says so is not believed."""
GONE = "caller_gone"
"""The error of a caller who left before the answer was whole."""
Flag = int
"""0 or 1: SQLite's binding takes twice as long over a bool."""


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """A row of the ledger, in the order of its columns."""

    id: str
    at_s: float
    """Seconds since 1970 at the end of the request."""
    tenant: str
    principal: str
    model: str
    kind: str
    stream: Flag
    step: str
    """Where it was answered; empty where it was not."""
    engine: str
    status: int
    complete: Flag
    input_tokens: int
    output_tokens: int
    tokens_estimated: Flag
    seconds: float
    first_s: float
    """Seconds to the first chunk."""
    usd: float
    large_usd: float
    """What the large model would have cost: the tokens of this answer at the route's large price."""
    large_estimated: Flag
    """0 where the large model itself answered and counted, and where nothing was answered."""
    visits: str
    """JSON: a list of [step, verdict, reason, seconds, usd]."""
    error: str = ""
    """The error's code; empty where there was none."""


encode = msgspec.json.Encoder().encode
NOTHING = Usage(0, 0)


def entry(settled: Settled, price: Price, at_s: float) -> Entry:
    """Write down one settled request. A stream that was cut off costs the tokens that were made."""
    request, outcome = settled.request, settled.outcome
    visits = outcome.visits
    first_s = usd = 0.0
    for visit in visits:
        first_s += visit.seconds
        usd += visit.usd
    step = visits[-1].step if visits and visits[-1].verdict == "answered" else ""
    usage = believed(settled.usage)
    large_usd = price.of(usage) if step else 0.0
    return Entry(  # by place: twenty names would cost as much as all the rest
        request.id,
        at_s,
        request.caller.tenant,
        request.caller.principal,
        request.model,
        request.kind,
        +request.stream,
        step,
        outcome.answer.engine if outcome.answer else "",
        settled.status,
        +settled.complete,
        usage.input_tokens,
        usage.output_tokens,
        +usage.estimated,
        settled.seconds,
        first_s,
        usd + large_usd if step == LARGE else usd,
        large_usd,
        +(step != LARGE or usage.estimated) if step else 0,
        encode(visits).decode(),
        "" if settled.complete else error_code(outcome.error),
    )


def believed(usage: Usage | None) -> Usage:
    """The usage as told, or within reason where an engine tells nonsense."""
    if usage is None:
        return NOTHING
    if 0 <= usage.input_tokens <= MOST_TOKENS and 0 <= usage.output_tokens <= MOST_TOKENS:
        return usage
    into, out = (min(max(tokens, 0), MOST_TOKENS) for tokens in (usage.input_tokens, usage.output_tokens))
    return Usage(into, out, estimated=True)


def error_code(error: Exception | None) -> str:
    """The code under which a failure is counted."""
    if error is None:
        return GONE
    return error.code if isinstance(error, StepwellError) else StepwellError.code
