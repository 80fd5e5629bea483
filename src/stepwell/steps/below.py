"""What a flight does below the cache: get the right to ask, ask, fall back on a stale answer, keep what is good.

Nobody's request runs here: whoever led may leave, and a refresh was led by nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter
from typing import Protocol

import msgspec
from msgspec import Struct

from stepwell.cache.admit import Allowance
from stepwell.cache.asking import Asking
from stepwell.cache.coalesce import Flight, Flights
from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import Terms, Wish, is_outage, lifetime_s, state
from stepwell.cache.key import Identity, Share
from stepwell.cache.rows import AnswerRow
from stepwell.errors import StoreError
from stepwell.protocols import Descent
from stepwell.steps.public import Public
from stepwell.types import Answer, Defer, Outcome, Proposal, Request, Settled, Settler, Usage, Visit

OK = 200
POLL_S = 0.05
"""How soon a process looks whether another one has the answer; then ever more slowly, up to ten times as much."""


class Rule(Struct, frozen=True):
    """How one model's answers are kept. `route` is what makes its engine answer as it does."""

    route: bytes
    share: Share
    keep: bool
    keep_sampled: bool
    terms: Terms
    tags: tuple[str, ...] = ()
    """What every answer of the route depends on: model, engines, their configuration."""


class Question(Struct, frozen=True):
    """A request, as the cache sees it."""

    request: Request
    rule: Rule
    scope: bytes
    exact: bytes
    wish: Wish
    partition: bytes = b""
    identity: Identity | None = None
    """What it is to a search by meaning; None where it cannot be looked up so."""


class Meaning(Protocol):
    """Answers to the same question in other words."""

    async def propose(self, asking: Asking) -> Proposal | Defer:
        """Asked by the request that leads, once; the promise rules on what it proposes."""
        ...

    def kept(self, identity: Identity, answer: bytes, expires_s: float, replaces: bytes) -> None:
        """A question was answered from below and its answer kept, in the place of an older one. Must return at once."""
        ...


class Below:
    """Everything that outlives a request. `worth`: USD that an answer of a model costs at the large model."""

    def __init__(
        self,
        exact: Exact,
        worth: Callable[[str, Usage | None], float],
        *,
        max_bytes: int,
        lease_s: float,
        after: Sequence[Settler],
        meaning: Meaning | None = None,
        public: Public | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        """`lease_s`: how long one process may be the only one to ask; `after`: told of what no request pays for."""
        self.exact, self.worth, self.max_bytes = exact, worth, max_bytes
        self.lease_s = lease_s if exact.tags.shared else 0.0
        self.after, self.meaning, self.public, self.allowance = after, meaning, public, allowance
        self.flights = Flights(max_bytes)
        self.now_s = exact.memory.clock.now_s

    def lead(self, asked: Question) -> Flight:
        """Begin a flight."""
        tags = (*asked.rule.tags, *asked.request.tags)
        return self.flights.lead(asked.exact, asked.partition, tags, self.exact.tags.position)

    def fly(self, asked: Question, flight: Flight, spare: Held | None, descent: Descent) -> None:
        """Ask below."""
        flight.position = self.exact.tags.position
        flight.fly(self.answered(asked, flight, spare, descent), lambda flight: self.landed(asked, flight))

    async def answered(self, asked: Question, flight: Flight, spare: Held | None, descent: Descent) -> Outcome:
        """The answer of another process that is at it; else the steps below; else what is stale."""
        began_s = perf_counter()
        found = await self.right(asked, flight) if self.lease_s else None
        if found is not None:
            return Outcome(found.proposal.answer, (Visit("cache", "answered", "collapsed", perf_counter() - began_s),))
        outcome = await descent()
        if outcome.answer is None and spare is not None and is_outage(outcome.error):
            stale = Visit("cache", "answered", "stale-if-error", 0.0)
            return Outcome(spare.proposal.answer, (*outcome.visits, stale), withheld=outcome.withheld)
        return outcome

    async def close(self) -> None:
        """Stop what nobody waits for; what waits to be written is written."""
        for flight in list(self.flights.flying.values()):
            if flight.background:
                flight.leave()
        await asyncio.sleep(0)
        await self.exact.close()

    # --- one process of many

    async def right(self, asked: Question, flight: Flight) -> Held | None:
        """Wait until no other process asks the same; None: this one shall. Without the store there is nobody to ask."""
        until_s, pause_s = monotonic() + self.lease_s, POLL_S
        try:
            while True:
                flight.fence = await self.exact.lease(asked.exact, self.lease_s) or 0
                found = await self.found(asked)
                if found is not None:
                    return found
                if flight.fence or monotonic() > until_s:
                    return None
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                pause_s = min(2 * pause_s, 10 * POLL_S)
        except StoreError:
            return None

    async def found(self, asked: Question) -> Held | None:
        """A fresh answer in the store, made by another process meanwhile. Raises StoreError."""
        rule = asked.rule
        held = await self.exact.find(asked.exact, asked.scope, asked.partition, rule.terms)
        if held is None or not set(asked.request.tags).issubset(held.row.tags):
            return None
        fresh = state(held.row.made_s, held.row.stale_s, self.now_s(), rule.terms, asked.wish) == "fresh"
        return held if fresh else None

    # --- afterwards

    def landed(self, asked: Question, flight: Flight) -> None:
        """Keep a whole, good answer that came from below, and write down what no request pays for."""
        below = flight.outcome is None or not flight.outcome.visits or flight.outcome.visits[-1].step != "cache"
        kept = below and flight.answer is not None and self.kept(asked, flight, flight.answer)
        if flight.fence and not kept:
            self.exact.give_up(flight.exact, flight.fence)
        if below and (flight.background or flight.paid is not None):
            self.account(asked, flight)

    def kept(self, asked: Question, flight: Flight, answer: Answer) -> bool:
        """Keep an answer, unless it is too large, was invalidated while it was made, or its caller had too many."""
        if not 0 < len(answer.body) <= self.max_bytes or self.exact.tags.dead(flight.tags, flight.position):
            return False
        who = asked.request.caller
        by = f"{who.tenant}\0{who.principal}".encode()
        if self.allowance is not None and not self.allowance.take(by, len(answer.body)):
            return False
        terms, now_s = asked.rule.terms, self.now_s()
        row = AnswerRow(
            partition=asked.partition,
            form=answer.form,
            body=answer.body,
            usage=answer.usage,
            engine=answer.engine,
            saved_usd=self.worth(asked.request.model, answer.usage),
            made_s=now_s,
            stale_s=now_s + lifetime_s(terms, asked.exact),
            tags=tuple({*flight.tags, f"engine:{answer.engine}"}),
            position=flight.position,
            seconds=perf_counter() - flight.began_s,
        )
        held = self.exact.keep(asked.exact, asked.scope, row, terms, flight.fence, by=by)
        if self.public is not None:
            self.public.offer(asked.request, row, terms)
        if self.meaning is not None and asked.identity is not None:
            self.meaning.kept(asked.identity, held.name, terms.expires_s(row.stale_s), flight.replaces)
        return True

    def account(self, asked: Question, flight: Flight) -> None:
        """Settle a refresh, or the part of an answer that its leader did not stay for."""
        outcome = flight.outcome or Outcome(None, (), flight.error)
        if flight.error is not None and outcome.error is None:
            outcome = Outcome(outcome.answer, outcome.visits, flight.error, outcome.withheld)
        request = asked.request
        if flight.paid is not None:
            request = msgspec.structs.replace(request, id=f"{request.id}-rest")
        settled = Settled(
            request=request,
            outcome=outcome,
            form=outcome.answer.form if outcome.answer else "json",
            body=flight.answer.body if flight.answer else b"",
            usage=rest(used(asked, flight), flight.paid),
            complete=flight.answer is not None,
            status=OK if flight.error is None else getattr(flight.error, "status", 500),
            seconds=perf_counter() - flight.began_s,
        )
        for settle in self.after:
            settle(settled)


def used(asked: Question, flight: Flight) -> Usage:
    """Tokens of a whole flight: as counted, else one an event."""
    if flight.answer is not None and flight.answer.usage is not None:
        return flight.answer.usage
    events = 0 if flight.live is None else sum(chunk.data.count(b"data: ") for chunk in flight.live.chunks)
    return Usage(len(asked.request.canonical) // 4 + 1 if events else 0, events, estimated=True)


def rest(usage: Usage, paid: Usage | None) -> Usage:
    """What remains to be paid."""
    if paid is None:
        return usage
    into, out = usage.input_tokens - paid.input_tokens, usage.output_tokens - paid.output_tokens
    return Usage(max(0, into), max(0, out), estimated=usage.estimated or paid.estimated)
