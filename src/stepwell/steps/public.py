"""Routes whose answers may become everybody's: what the cache step looks up and offers beside each caller's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stepwell.cache import public
from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import Terms
from stepwell.cache.key import key, scope
from stepwell.cache.public import Asked
from stepwell.cache.rows import AnswerRow
from stepwell.types import Caller, Request

if TYPE_CHECKING:
    from stepwell.steps.below import Rule

ANYBODY = Caller("", "")


def everybodys(exact: Exact, rules: Mapping[str, Rule], *, secret: bytes, quorum: int) -> Public | None:
    """The public side of the routes that have one; None where none has."""
    partitions = {name: partition(rule.route) for name, rule in rules.items() if rule.share == "public" and rule.keep}
    return Public(exact, partitions, secret=secret, quorum=quorum) if partitions else None


def partition(route: bytes) -> bytes:
    """The public scope of a route, known to all; `route` is whatever makes its engines answer as they do."""
    return scope(route, ANYBODY, "public")


class Public:
    """The public side of some routes. `secret`: what voters are hashed with; `partitions`: by model."""

    def __init__(self, exact: Exact, partitions: dict[str, bytes], *, secret: bytes, quorum: int) -> None:
        self.exact, self.partitions, self.secret, self.quorum = exact, partitions, secret, quorum

    def asked(self, request: Request) -> Asked | None:
        """The question as everybody would ask it; None where the route has no public side."""
        whose = self.partitions.get(request.model)
        if whose is None:
            return None
        return Asked(request.kind, request.canonical, whose, key(whose, request))

    def recall(self, request: Request) -> Held | None:
        """The public answer, if it is at hand."""
        asked = self.asked(request)
        return None if asked is None else self.exact.recall(asked.exact, asked.partition)

    async def find(self, request: Request, terms: Terms) -> Held | None:
        """The public answer, if the store has it. Raises StoreError."""
        asked = self.asked(request)
        if asked is None:
            return None
        return await self.exact.find(asked.exact, asked.partition, asked.partition, terms)

    def offer(self, request: Request, row: AnswerRow, terms: Terms) -> None:
        """An answer was kept for its caller: count the vote, and make it public if it may be. Nobody waits."""
        asked = self.asked(request)
        if asked is not None:
            self.exact.soon(self.offered(asked, request.caller, row, terms))

    async def offered(self, asked: Asked, caller: Caller, row: AnswerRow, terms: Terms) -> None:
        """See one offer through. Raises StoreError."""
        who = public.voter(self.secret, caller)
        await public.offer(self.exact, asked, who, row, terms=terms, quorum=self.quorum)
