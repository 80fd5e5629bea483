"""How fresh an answer is: absolute lifetimes (RFC 9111), stale while or if (RFC 5861), early refresh (XFetch).

A caller's own `Cache-Control` may only tighten what the route allows.
"""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

from stepwell.errors import EngineError, StepwellError

State = Literal["fresh", "early", "stale", "spare", "old", "unwanted"]
"""early: fresh, and better asked for anew already; stale: may be served while it is asked for anew; spare: may be
served if that fails; old: of no use; unwanted: this caller wants a newer one."""

JITTER = 0.1
"""Lifetimes differ by as much, so that what was made together does not expire together."""
SURELY = 12.0
"""XFetch's chance beyond so many deltas is e^-12: nobody need draw."""
FUTURE_S = 60.0
"""An answer from further ahead than clocks differ is not believed."""
TRY_AGAIN = (408, 425, 429)


class Terms(Struct, frozen=True, gc=False):
    """How long the answers of a route live, in seconds."""

    ttl_s: float
    swr_s: float = 0.0
    sie_s: float = 0.0
    early: float = 0.0
    """XFetch's beta: 1 is its optimum for popular answers, more is earlier, 0 never."""

    def expires_s(self, stale_s: float) -> float:
        """When an answer that is stale from `stale_s` on is of no use any more."""
        return stale_s + max(self.swr_s, self.sie_s)

    def longest_s(self) -> float:
        """Nothing is served for longer than this."""
        return self.expires_s(self.ttl_s * (1 + JITTER))


class Wish(Struct, frozen=True, gc=False):
    """What a caller's Cache-Control asks for. Seconds."""

    no_store: bool = False
    no_cache: bool = False
    max_age_s: float = math.inf
    min_fresh_s: float = 0.0
    max_stale_s: float = math.inf
    if_error_s: float = math.inf


ANYTHING = Wish()


def wish(header: bytes) -> Wish:
    """Read a request's Cache-Control; what nobody knows, or is no number, is left out (RFC 9111, 5.2)."""
    said: dict[str, float | None] = {}
    for part in header.decode("latin-1").lower().split(","):
        name, equals, value = part.strip().partition("=")
        said[name.strip()] = seconds(value) if equals else None
    if said.get("max-age") is not None and "max-stale" not in said:
        said["max-stale"] = 0.0
    return Wish(
        no_store="no-store" in said,
        no_cache="no-cache" in said,
        max_age_s=bound(said, "max-age"),
        min_fresh_s=said.get("min-fresh") or 0.0,
        max_stale_s=min(bound(said, "max-stale"), bound(said, "stale-while-revalidate")),
        if_error_s=bound(said, "stale-if-error"),
    )


def bound(said: dict[str, float | None], name: str) -> float:
    """The seconds of a directive; endless where it is not said."""
    value = said.get(name)
    return math.inf if value is None else value


def seconds(text: str) -> float | None:
    """Whole seconds, in quotes or not; None for anything else."""
    text = text.strip().strip('"')
    return float(text) if text.isascii() and text.isdigit() and len(text) < 16 else None  # noqa: PLR2004 - centuries


def lifetime_s(terms: Terms, exact: bytes) -> float:
    """The TTL of one answer: the same for a key everywhere, within 10 % of the route's."""
    share = int.from_bytes(exact[:4]) / 2**32
    return terms.ttl_s * (1 - JITTER + 2 * JITTER * share)


def early_s(made_s: float, stale_s: float, delta_s: float, beta: float) -> float:
    """The time from which an early refresh is worth a draw."""
    return max(made_s, stale_s - SURELY * beta * delta_s)


def is_early(stale_s: float, now_s: float, delta_s: float, beta: float, chance: float) -> bool:
    """XFetch (Vattani, Chierichetti, Lowenstein: Optimal probabilistic cache stampede prevention, VLDB 2015).

    `delta_s` is what making the answer took, `chance` is uniform over (0, 1].
    """
    return now_s - delta_s * beta * math.log(chance) >= stale_s


def state(made_s: float, stale_s: float, now_s: float, terms: Terms, wanted: Wish) -> State:
    """What an answer is good for now. Early refresh apart: see `is_early`."""
    if made_s > now_s + FUTURE_S:
        return "old"
    late_s = now_s - stale_s
    if wanted.no_cache or now_s - made_s > wanted.max_age_s or 0 < wanted.min_fresh_s > -late_s:
        return "unwanted"
    if late_s < 0:
        return "fresh"
    if late_s < min(terms.swr_s, wanted.max_stale_s):
        return "stale"
    if late_s < min(terms.sie_s, wanted.if_error_s, wanted.max_stale_s):
        return "spare"
    return "old"


def is_outage(error: Exception | None) -> bool:
    """Say whether a failure is the engines', not the question's: then a stale answer is better than none."""
    if isinstance(error, EngineError):
        return error.status >= 500 or error.status in TRY_AGAIN  # noqa: PLR2004
    return error is not None and not isinstance(error, StepwellError)
