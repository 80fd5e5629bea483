"""Deliver an Outcome: as JSON or as an event stream, frame by frame, and say where it came from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from stepwell.errors import EngineBadReply, EngineRefusal, StepwellError
from stepwell.gateway import cache_status, openai
from stepwell.gateway.clock import http_date
from stepwell.gateway.exchange import Exchange
from stepwell.protocols import Direct
from stepwell.types import Answer, Chunk, Outcome, Request, Settled, Usage, Visit

log = logging.getLogger(__name__)

Worth = Callable[[str, Usage | None], float]
"""USD that an answer of a model would have cost at the large model."""

OK = 200
HUNG_UP = 499
"""nginx's word for a caller who left before the reply was whole; never sent, only written down."""
TYPES = {"json": b"application/json", "events": b"text/event-stream; charset=utf-8"}


class Sent(Struct):
    """What has gone out so far; `pieces` hold it as the engine sent it, usage and all, while it is not too large."""

    pieces: list[bytes] = []
    num_bytes: int = 0
    usage: Usage | None = None
    complete: bool = False
    error: StepwellError | None = None


def whole(exchange: Exchange, request: Request, outcome: Outcome, sent: Sent) -> None:
    """Write a reply that is all there, or an error, in one go."""
    answer = outcome.answer
    if answer is None:
        refuse(exchange, openai.known(outcome.error), request.id, outcome.visits)
        return
    sent.pieces.append(answer.body)
    sent.usage, sent.complete = answer.usage, not exchange.gone
    exchange.reply(OK, head(request, outcome, answer), answer.body)


async def stream(
    exchange: Exchange, request: Request, outcome: Outcome, sent: Sent, *, keep_bytes: int, worth: Worth | None = None
) -> None:
    """Pass on chunks as they come, one write each, no faster than the caller reads.

    A stream that breaks ends with an error event and a cut connection, never as if it were complete. Where the head
    could not say what was saved, `worth` does, in the last usage event.
    """
    answer = outcome.answer
    assert answer is not None  # noqa: S101 - only called for an answer that is still coming
    keep(sent, Chunk(answer.body, answer.usage), keep_bytes)
    exchange.begin(head(request, outcome, answer), answer.body)
    if isinstance(answer.chunks, Direct):
        answer.chunks.direct(partial(take, exchange, sent, keep_bytes))
    try:
        async for chunk in answer.chunks:
            keep(sent, chunk, keep_bytes)
            exchange.write(chunk.data if chunk.usage is None else counted(request, answer, chunk, worth))
            if exchange.connection.writable is not None:
                await exchange.connection.writable
        if not sent.complete:
            raise EngineBadReply("the stream ended before its end mark")  # noqa: TRY301 - one way for all breaks
    except Exception as error:  # noqa: BLE001 - a head is out already: whatever broke, the caller must be told in-stream
        sent.error = error if isinstance(error, StepwellError) else EngineBadReply(f"{type(error).__name__}: {error}")
        sent.complete = False
        log.warning("request %s: the stream broke off: %s", request.id, sent.error)
        exchange.write(openai.error_event(sent.error))
        exchange.abort()
    else:
        exchange.end()
    finally:
        await answer.chunks.aclose()


def counted(request: Request, answer: Answer, chunk: Chunk, worth: Worth | None) -> bytes:
    """A chunk with usage as this caller gets it: what holds nothing else, only where it was asked for."""
    if not openai.is_usage_event(chunk.data):
        return chunk.data
    if not request.include_usage:
        return b""
    if worth is None or answer.saved_usd is not None:
        return chunk.data
    return openai.with_saved(chunk.data, money(worth(request.model, chunk.usage)))


def take(exchange: Exchange, sent: Sent, keep_bytes: int, words: bytes) -> bool:
    """Pass words on in the very call that brings them; not where the caller is slow."""
    if exchange.connection.writable is not None:
        return False
    hold(sent, words, keep_bytes)
    exchange.write(words)
    return True


def keep(sent: Sent, chunk: Chunk, keep_bytes: int) -> None:
    """Note a chunk."""
    sent.usage = chunk.usage or sent.usage
    sent.complete = chunk.last
    hold(sent, chunk.data, keep_bytes)


def hold(sent: Sent, data: bytes, keep_bytes: int) -> None:
    """Keep a piece; of a reply that passes `keep_bytes` only its size is kept."""
    sent.num_bytes += len(data)
    if sent.num_bytes <= keep_bytes:
        sent.pieces.append(data)
    else:
        sent.pieces.clear()


def settled(request: Request, outcome: Outcome, sent: Sent, seconds: float) -> Settled:
    """Sum up a request that is over, for the settlers."""
    form = outcome.answer.form if outcome.answer else "json"
    body = b"".join(sent.pieces)
    usage = sent.usage
    if usage is None and outcome.answer is not None:
        usage = openai.estimated_usage(request, body, form)
    error = sent.error or outcome.error
    ended = OK if sent.complete else HUNG_UP
    status = openai.known(error).status if error is not None else ended
    return Settled(
        request=request,
        outcome=outcome if error is outcome.error else Outcome(outcome.answer, outcome.visits, error),
        form=form,
        body=body,
        usage=usage,
        complete=sent.complete,
        status=status,
        seconds=seconds,
    )


def refuse(exchange: Exchange, error: StepwellError, request_id: str, visits: tuple[Visit, ...] = ()) -> None:
    """Send an error in OpenAI's shape."""
    lines = [start_of(b"application/json", request_id)]
    if isinstance(error, EngineRefusal) and error.retry_after_s is not None:
        lines.append(b"Retry-After: %d\r\n" % max(1, round(error.retry_after_s)))
    if visits:
        lines.append(cache_status.lines(visits, None))
    if error.status == 401:  # noqa: PLR2004
        lines.append(b"WWW-Authenticate: Bearer\r\n")
    exchange.reply(error.status, b"".join(lines), openai.error_body(error))


def head(request: Request, outcome: Outcome, answer: Answer) -> bytes:
    """The header lines of an answer: what it is, and where it came from."""
    visits = outcome.visits
    saved = b"" if answer.saved_usd is None else b"Stepwell-Saved-Usd: %b\r\n" % money(answer.saved_usd)
    return b"%bStepwell-Step: %b\r\n%b%b" % (
        start_of(TYPES[answer.form], request.id),
        visits[-1].step.encode(),
        cache_status.lines(visits, answer),
        saved,
    )


def start_of(content_type: bytes, request_id: str) -> bytes:
    """The header lines that every reply has."""
    return b"Content-Type: %b\r\nDate: %b\r\nx-request-id: %b\r\n" % (content_type, http_date(), request_id.encode())


def money(usd: float) -> bytes:
    """USD without an exponent, to a billionth."""
    return b"0" if usd == 0 else b"%.9f" % usd
