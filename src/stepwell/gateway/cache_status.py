"""What the cache did, in the words of RFC 9211 (Cache-Status) and RFC 9111 (Age)."""

from __future__ import annotations

import re
from functools import lru_cache
from time import time

from stepwell.types import Answer, Visit

NAME = b"stepwell"
FORWARDED = frozenset({"bypass", "miss", "request", "stale"})
"""Why a request went on: RFC 9211's own words, and how the cache step's reasons begin."""
is_token = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*").fullmatch
"""RFC 8941; what is none is written as a string."""


def lines(visits: tuple[Visit, ...], answer: Answer | None) -> bytes:
    """The header lines."""
    now_s = time()
    age = b"" if answer is None or not answer.made_s else b"Age: %d\r\n" % max(0, int(now_s - answer.made_s))
    return b"Cache-Status: %b\r\n%b" % (status(visits, answer.expires_s - now_s if answer else 0.0), age)


def status(visits: tuple[Visit, ...], ttl_s: float) -> bytes:
    """The last word of the cache counts: where everything below failed, it may have had another one."""
    for visit in reversed(visits):
        if visit.step == "cache":
            break
    else:
        return NAME + b"; fwd=bypass"
    if visit.reason == "hit":  # most are, and nothing more is to be said of them
        return b"stepwell; hit; ttl=%d" % ttl_s
    how, _, detail = visit.reason.partition(": ")
    if how == "collapsed":
        return NAME + b"; fwd=miss; collapsed"
    if how == "stale-if-error":
        return b"%b; fwd=stale; ttl=%d; detail=stale-if-error" % (NAME, int(ttl_s))
    if visit.verdict == "answered":
        told = detail if how == "hit" else visit.reason
        return b"%b; hit; ttl=%d%b" % (NAME, int(ttl_s), told_as(told))
    return b"%b; fwd=%b%b" % (NAME, how.encode() if how in FORWARDED else b"miss", told_as(detail))


@lru_cache(maxsize=128)
def told_as(detail: str) -> bytes:
    """The parameter `detail`."""
    if not detail:
        return b""
    if is_token(detail):
        return b"; detail=" + detail.encode()
    shown = "".join(each if " " <= each <= "~" else "?" for each in detail)
    return b'; detail="%b"' % shown.replace("\\", "\\\\").replace('"', '\\"').encode()
