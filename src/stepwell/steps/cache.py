"""The cache step: an exact answer kept from before, or from an equal request in flight; and what to keep after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from stepwell.cache.coalesce import Flights
from stepwell.cache.exact import Exact
from stepwell.cache.key import key, scope
from stepwell.drive import Drive
from stepwell.engines.replay import in_form
from stepwell.types import Answer, Caller, Defer, Evidence, Form, Proposal, Request, Settled, Usage

OK = 200


class Rule(Struct, frozen=True):
    """How one model's answers are kept. `route` is what makes its engine answer as it does."""

    route: bytes
    share: Literal["principal", "tenant"]
    keep: bool
    keep_sampled: bool
    ttl_s: float


class Cache:
    """The step and its settler. `worth` says what an answer of a model would have cost at the large model, in USD."""

    name = "cache"

    def __init__(
        self, exact: Exact, rules: Mapping[str, Rule], worth: Callable[[str, Usage | None], float], max_bytes: int
    ) -> None:
        self.exact, self.rules, self.worth, self.max_bytes = exact, rules, worth, max_bytes
        self.flights = Flights()
        self.scopes: dict[tuple[str, Caller], bytes] = {}
        self.leading: dict[str, bytes] = {}
        """Key by id of each request that leads a flight."""

    async def propose(self, request: Request) -> Proposal | Defer:
        """Answer from memory or disk; else wait for the same question in flight; else lead it, and defer."""
        rule = self.rules[request.model]
        if not rule.keep:
            return Defer("bypass: the route keeps no answers")
        if request.sampled and not rule.keep_sampled:
            return Defer("bypass: temperature above 0")
        name = key(self.scope(request, rule), request)
        found = await self.exact.get(name)
        if found is not None:
            return proposal(found, request, "hit")
        while not self.flights.leads(name, request.id):
            landing = await self.flights.wait(name)
            if isinstance(landing, Exception):
                return Defer("collapsed: the same question failed", error=landing, final=True)
            if landing is not None:
                return proposal(landing, request, "collapsed")
        self.leading[request.id] = name
        return Defer("miss")

    def settle(self, settled: Settled) -> None:
        """Keep a complete answer, and end the flight that this request led."""
        name = self.leading.pop(settled.request.id, None)
        if name is None:
            return
        answer = self.keepable(settled)
        if answer is not None:
            put = self.exact.put(name, answer, self.rules[settled.request.model].ttl_s)
            Drive(put, asyncio.get_running_loop())
        self.flights.land(name, settled.request.id, answer or settled.outcome.error)

    def keepable(self, settled: Settled) -> Answer | None:
        """The answer as it may be given to others: complete, good and not too large; else None."""
        given = settled.outcome.answer
        whole = settled.complete and settled.status == OK and 0 < len(settled.body) <= self.max_bytes
        if given is None or not whole:
            return None
        return Answer(
            form=settled.form,
            body=settled.body,
            usage=settled.usage,
            engine=given.engine,
            saved_usd=self.worth(settled.request.model, settled.usage),
        )

    def scope(self, request: Request, rule: Rule) -> bytes:
        """The first half of the key, made once a caller and model."""
        at = (request.model, request.caller)
        found = self.scopes.get(at)
        if found is None:
            found = self.scopes[at] = scope(rule.route, request.caller, rule.share)
        return found


def proposal(kept: Answer, request: Request, how: str) -> Proposal:
    """Offer a kept answer in the form that this caller wants."""
    wants: Form = "events" if request.stream else "json"
    if kept.form == "json" and wants == "json":
        return Proposal(kept, Evidence("exact", how))
    body = in_form(kept.body, kept.form, wants, request.kind, include_usage=request.include_usage)
    return Proposal(msgspec.structs.replace(kept, form=wants, body=body), Evidence("exact", how))
