"""The cache step: an answer kept from before, or one being given right now; else take the lead, and go down."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from time import perf_counter
from typing import Any

import msgspec

from stepwell.cache.asking import Asking
from stepwell.cache.coalesce import Flight
from stepwell.cache.exact import Held
from stepwell.cache.fresh import ANYTHING, is_early, state, wish
from stepwell.cache.key import Identity, Share, key, scope
from stepwell.cache.rows import AnswerRow
from stepwell.engines.replay import in_form
from stepwell.errors import StoreError
from stepwell.protocols import Descent
from stepwell.steps.below import OK, Below, Meaning, Question, Rule
from stepwell.types import (
    Answer,
    Caller,
    Defer,
    Evidence,
    Form,
    Outcome,
    Proposal,
    Request,
    Settled,
    Usage,
    Visit,
)

log = logging.getLogger(__name__)

NOTHING = Usage(0, 0)
REFRESH_S = 1.0
"""A refresh is not begun again sooner, however it ended."""
SERVED = frozenset({"fresh", "early", "stale"})
REASONS = {"unwanted": "request", "stale": "stale", "spare": "stale"}
"""Why a kept answer does not do, in RFC 9211's words; all else is a miss."""

Identify = Callable[[bytes, bytes, Request], Identity | str]
"""Scope, exact digest, request: what the question is to a search by meaning, or why it cannot be looked up so."""


class Cache:
    """The step and its settler."""

    name = "cache"

    def __init__(
        self,
        below: Below,
        rules: Mapping[str, Rule],
        descend: Callable[[Request], Coroutine[Any, Any, Outcome]],
        *,
        identify: Identify | None = None,
        meaning: Meaning | None = None,
    ) -> None:
        """`descend`: asks the steps below this one, for a refresh."""
        self.below, self.exact, self.flights, self.public = below, below.exact, below.flights, below.public
        self.rules, self.descend, self.identify, self.meaning = rules, descend, identify, meaning
        self.now_s = below.now_s
        self.scopes: dict[tuple[str, Caller], bytes] = {}
        self.leading: dict[str, Flight] = {}
        """Flight by id of each request that leads one and has not ended."""

    async def propose(self, request: Request) -> Proposal | Defer:
        """Answer from memory, in microseconds; else look further."""
        rule = self.rules[request.model]
        if not rule.keep:
            return Defer("bypass: the route keeps no answers")
        if request.sampled and not rule.keep_sampled:
            return Defer("bypass: temperature above 0")
        whose = self.scope(request, rule)
        exact = key(whose, request)
        held = self.recall(request, exact, whose)
        if held is not None and self.now_s() < held.quiet_s and not request.cache_control and not request.tags:
            return proposal(held.proposal, request)
        wanted = wish(request.cache_control) if request.cache_control else ANYTHING
        return await self.look(Question(request, rule, whose, exact, wanted), held)

    async def look(self, asked: Question, held: Held | None) -> Proposal | Defer:
        """Kept → in flight → by meaning → one step down."""
        if asked.wish.no_store:
            return Defer("bypass: the caller wants nothing stored")
        while True:
            served = self.served(asked, held, self.state(asked, held))
            if served is not None:
                return served
            flight = self.joinable(asked)
            if flight is None:
                return await self.lead(asked, held)
            followed = await self.follow(flight, asked.request)
            if followed is not None:
                return followed
            held = self.recall(asked.request, asked.exact, asked.scope)

    # --- kept

    def recall(self, request: Request, exact: bytes, whose: bytes) -> Held | None:
        """What memory has: this caller's own, else everybody's."""
        held = self.exact.recall(exact, whose)
        return self.public.recall(request) if held is None and self.public is not None else held

    def served(self, asked: Question, held: Held | None, how: str) -> Proposal | None:
        """A kept answer, if this caller may have it; what is stale is asked for anew meanwhile."""
        if held is None or how not in SERVED:
            return None
        if how == "fresh":
            return proposal(held.proposal, asked.request)
        self.refresh(asked, held, how)
        detail = "hit" if how == "early" else "hit: stale-while-revalidate"
        return proposal(Proposal(held.proposal.answer, Evidence("exact", detail)), asked.request)

    def state(self, asked: Question, held: Held | None) -> str:
        """What a kept answer is good for to this caller."""
        if held is None:
            return "old"
        if asked.request.tags and not set(asked.request.tags).issubset(held.row.tags):
            return "unwanted"  # it would not be invalidated with what this caller depends on
        row, now_s, terms = held.row, self.now_s(), asked.rule.terms
        how = state(row.made_s, row.stale_s, now_s, terms, asked.wish)
        chance = 1.0 - random.random()  # noqa: S311 - no secret
        if how == "fresh" and terms.early and is_early(row.stale_s, now_s, row.seconds, terms.early, chance):
            return "early"
        return how

    def refresh(self, asked: Question, held: Held, why: str) -> None:
        """Ask for an answer anew, once, without anybody waiting."""
        now_s = self.now_s()
        if asked.exact in self.flights.flying or now_s < held.refresh_s:
            return
        held.refresh_s = now_s + REFRESH_S
        request = msgspec.structs.replace(
            asked.request, id=f"{asked.request.id}-refresh", started_s=perf_counter(), cache_control=b""
        )
        again = self.identified(msgspec.structs.replace(asked, request=request, wish=ANYTHING))
        flight = self.below.lead(again)
        flight.replaces = held.name
        flight.background = True
        flight.want()
        self.below.fly(again, flight, None, partial(self.refreshed, request, f"refresh: {why}"))

    async def refreshed(self, request: Request, why: str) -> Outcome:
        """The steps below, as a descent that began here."""
        outcome = await self.descend(request)
        deferred = Visit(self.name, "deferred", why, 0.0)
        return Outcome(outcome.answer, (deferred, *outcome.visits), outcome.error, outcome.withheld)

    # --- in flight

    def joinable(self, asked: Question) -> Flight | None:
        """A flight that gives this caller what it wants, and that nothing has invalidated since it began."""
        flight = self.flights.flying.get(asked.exact)
        return flight if flight is not None and self.joins(asked, flight) else None

    def joins(self, asked: Question, flight: Flight) -> bool:
        """Whether a caller may be given what a flight brings."""
        if asked.wish.no_cache or self.exact.tags.dead(flight.tags, flight.position):
            return False
        return set(asked.request.tags).issubset(flight.tags)

    def takes(self, asked: Question, row: AnswerRow) -> bool:
        """Whether a caller may be given an answer that was kept for other words; a stale one nobody makes anew."""
        if not set(asked.request.tags).issubset(row.tags):
            return False
        return state(row.made_s, row.stale_s, self.now_s(), asked.rule.terms, asked.wish) == "fresh"

    async def follow(self, flight: Flight, request: Request) -> Proposal | Defer | None:
        """The answer of a flight, as it comes or once it is whole; None where it gave none: ask again."""
        flight.want()
        reading = False
        try:
            if request.stream:
                await flight.begun()
                if flight.live is not None and flight.shareable:
                    reading = True
                    return await along(flight)
            await flight.ended()
        finally:
            if not reading:
                flight.leave()
        if flight.answer is not None:
            return self.collapsed(flight, flight.answer, request)
        if flight.error is not None:
            return Defer("collapsed: the same question failed", error=flight.error, final=True)
        return None if flight.shareable else Defer("miss: too large to share")

    def collapsed(self, flight: Flight, answer: Answer, request: Request) -> Proposal:
        """The whole answer of a flight, in the form that this caller wants."""
        wants: Form = "events" if request.stream else "json"
        body = flight.forms.get((wants, request.include_usage))
        if body is None:
            body = in_form(answer.body, answer.form, wants, request.kind, include_usage=request.include_usage)
            flight.forms[wants, request.include_usage] = body
        saved_usd = self.below.worth(request.model, answer.usage)
        given = msgspec.structs.replace(answer, form=wants, body=body, saved_usd=saved_usd)
        return Proposal(given, Evidence("exact", how(flight)))

    async def lead(self, asked: Question, held: Held | None) -> Proposal | Defer:
        """Look where looking takes time, for all who ask the same; then go one step down for them."""
        asked = self.identified(asked)
        flight = self.below.lead(asked)
        try:
            found, reason = await self.found(asked, held)
            flight.replaces = b"" if found is None else found.name
            how = self.state(asked, found)
            told = None if how in SERVED else await self.meant(asked)
        except BaseException:
            flight.land()
            raise
        if how in SERVED:
            flight.land()  # those who waited find it, too, and its refresh is another flight
        served = self.served(asked, found, how)
        if served is not None:
            return served
        self.leading[asked.request.id] = flight
        onward = partial(self.onward, asked, flight, found if how == "spare" else None)
        if isinstance(told, Proposal):
            return msgspec.structs.replace(told, onward=onward)
        return Defer(f"{reason}: {told.reason}" if told else reason, told.usd if told else 0.0, onward=onward)

    async def found(self, asked: Question, held: Held | None) -> tuple[Held | None, str]:
        """What the store has, or memory where that is newer; and the reason to go down if it does not serve."""
        reason = REASONS.get(self.state(asked, held), "miss")
        try:
            found = await self.exact.find(asked.exact, asked.scope, asked.partition, asked.rule.terms)
            if found is None and self.public is not None:
                found = await self.public.find(asked.request, asked.rule.terms)
        except StoreError:
            return held, f"{reason}: store-unavailable"
        if found is None or (held is not None and held.row.made_s >= found.row.made_s):
            return held, reason
        return found, REASONS.get(self.state(asked, found), "miss")

    async def meant(self, asked: Question) -> Proposal | Defer | None:
        """What a search by meaning proposes; a defect of it must not cost each of those who wait a call of its own."""
        if self.meaning is None or asked.identity is None or asked.wish.no_cache:
            return None
        takes, joins = partial(self.takes, asked), partial(self.joins, asked)
        try:
            return await self.meaning.propose(Asking(asked.request, asked.identity, self.flights, takes, joins))
        except Exception:
            log.exception("the search by meaning broke on request %s", asked.request.id)
            return None

    async def onward(self, asked: Question, flight: Flight, spare: Held | None, descent: Descent) -> Outcome:
        """Let the flight ask below, and read along as its first passenger."""
        flight.want()
        left = False
        try:
            self.below.fly(asked, flight, spare, descent)
            await flight.begun()
            outcome = flight.outcome or Outcome(None, (), flight.error)
            if flight.live is None or outcome.answer is None:
                return outcome
            left = True
            answer = msgspec.structs.replace(outcome.answer, chunks=flight.reader(after_first=True))
            return Outcome(answer, outcome.visits, outcome.error, outcome.withheld)
        finally:
            if not left:
                flight.leave()

    def settle(self, settled: Settled) -> None:
        """The request that led is over: the flight lands if it never went down, and goes on if others want it."""
        flight = self.leading.pop(settled.request.id, None)
        if flight is None or flight.over:
            return
        if flight.drive is None:
            flight.uncertain = settled.outcome.visits[-1].reason.startswith("hit: ")
            flight.land(given(settled))
        elif flight.num_wanting > 0:
            flight.paid = settled.usage or NOTHING

    # --- who asks what

    def identified(self, asked: Question) -> Question:
        """The question with its partition, and with what it is to a search by meaning."""
        if self.identify is None:
            return msgspec.structs.replace(asked, partition=asked.scope)
        who = self.identify(asked.scope, asked.exact, asked.request)
        if isinstance(who, str):
            return msgspec.structs.replace(asked, partition=asked.scope)
        return msgspec.structs.replace(asked, partition=who.partition, identity=who)

    def scope(self, request: Request, rule: Rule) -> bytes:
        """The first half of the key, made once a caller and model."""
        at = (request.model, request.caller)
        found = self.scopes.get(at)
        if found is None:
            own: Share = "principal" if rule.share == "public" else rule.share  # everybody's only after a quorum
            found = self.scopes[at] = scope(rule.route, request.caller, own)
        return found


async def along(flight: Flight) -> Proposal:
    """Read a stream along with its leader, from its start."""
    reader = flight.reader()
    try:
        first = await anext(reader)
    except BaseException:
        await reader.aclose()
        raise
    if first.last:
        await reader.aclose()
    engine = flight.outcome.answer.engine if flight.outcome and flight.outcome.answer else ""
    answer = Answer(
        form="events",
        body=first.data,
        chunks=None if first.last else reader,
        usage=first.usage,
        engine=engine,
    )
    return Proposal(answer, Evidence("exact", how(flight)))


def how(flight: Flight) -> str:
    """What the cache did for those who read along; what was uncertain for the leader is so for them, too."""
    if flight.uncertain:
        return "hit: semantic, collapsed"
    last = flight.outcome.visits[-1] if flight.outcome and flight.outcome.visits else None
    return last.reason if last is not None and last.step == Cache.name else "collapsed"


def given(settled: Settled) -> Answer | None:
    """What a request that led was given by the cache itself, where others may have it, too."""
    answer = settled.outcome.answer
    if answer is None or not settled.complete or settled.status != OK:
        return None
    return Answer(form=settled.form, body=settled.body, usage=settled.usage, engine=answer.engine)


def proposal(kept: Proposal, request: Request) -> Proposal:
    """Offer a kept answer in the form that this caller wants."""
    answer = kept.answer
    wants: Form = "events" if request.stream else "json"
    if answer.form == "json" and wants == "json":
        return kept
    body = in_form(answer.body, answer.form, wants, request.kind, include_usage=request.include_usage)
    return Proposal(msgspec.structs.replace(answer, form=wants, body=body), kept.evidence)
