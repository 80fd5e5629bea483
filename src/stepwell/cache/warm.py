"""Which questions are worth asking ahead: counted, the most common first; and a budget that is never passed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.errors import BadRequest


class Frequent(Struct, frozen=True):
    """One question, and how often it was asked."""

    body: bytes
    count: int


def most_common(bodies: Iterable[tuple[bytes, bytes, int]], top: str) -> list[Frequent]:
    """The most common of (what makes questions equal, body, count); `top` is a share ("10%") or a number.

    Raises BadRequest where `top` is neither.
    """
    counts: dict[bytes, Frequent] = {}
    for equal, body, count in bodies:
        known = counts.get(equal)
        counts[equal] = Frequent(known.body if known else body, count + (known.count if known else 0))
    ranked = sorted(counts.values(), key=lambda each: -each.count)
    return ranked[: num_of(top, len(ranked))]


def num_of(top: str, num: int) -> int:
    """How many of `num` are meant: at least one, where there is one. Raises BadRequest."""
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", top)
    if share and 0 < float(share[1]) <= 100:  # noqa: PLR2004 - a share
        return min(num, math.ceil(num * float(share[1]) / 100))
    if top.isascii() and top.isdigit() and int(top):
        return min(num, int(top))
    raise BadRequest(f"--top {top!r} is neither a share (10%) nor a number (500)")


def question(line: bytes) -> tuple[bytes, int]:
    """The body and count of one line: a request, or {"request": {...}, "count": 7}. Raises BadRequest."""
    try:
        told: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"is not JSON: {error}") from error
    if isinstance(told, dict) and isinstance(told.get("request"), dict):
        count = told.get("count", 1)
        if type(count) is not int or count < 1:
            raise BadRequest("count must be a number from 1", param="count")
        return msgspec.json.encode(told["request"]), count
    if not isinstance(told, dict):
        raise BadRequest("must be a request, as it is POSTed")
    return line, 1


class Budget:
    """What may still be spent: a call is begun only where its worst case still fits."""

    def __init__(self, usd: float, num_calls: float) -> None:
        self.usd, self.num_calls = usd, num_calls
        self.spent_usd = self.reserved_usd = 0.0
        self.num_called = self.num_flying = 0

    def fits(self, worst_usd: float) -> bool:
        """Say whether one more call may be begun now."""
        left_usd = self.usd - self.spent_usd - self.reserved_usd
        return self.num_called + self.num_flying < self.num_calls and worst_usd <= left_usd

    def begin(self, worst_usd: float) -> bool:
        """Begin a call, if it fits."""
        if not self.fits(worst_usd):
            return False
        self.num_flying += 1
        self.reserved_usd += worst_usd
        return True

    def end(self, worst_usd: float, usd: float, *, called: bool) -> None:
        """A call is over: what it cost is spent, the rest is free again; what asked no model counts for nothing."""
        self.num_flying -= 1
        self.num_called += called
        self.reserved_usd = max(0.0, self.reserved_usd - worst_usd) if self.num_flying else 0.0
        self.spent_usd += usd
