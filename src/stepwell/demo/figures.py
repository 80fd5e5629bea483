"""Figures as people read them: durations, money and the cells of a step's row."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, log10

from stepwell.demo.story import Row

COLUMNS = ("requests", "share", "p50", "p99", "tokens", "spent", "at large", "saved")


def cells(row: Row, most_usd: float) -> Iterator[str]:
    """A row's figures as text, in the order of COLUMNS; money to the same digit in every row."""
    yield f"{row.num:,}"
    yield f"{row.share:.1%}"
    yield duration(row.p50_s)
    yield duration(row.p99_s)
    yield f"{row.tokens:,}"
    for usd in (row.usd, row.large_usd, row.saved_usd):
        yield money(usd, most_usd)


def duration(seconds: float) -> str:
    """Seconds with the unit that suits them, to about three figures."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:
            return f"{rounded(seconds / size)} {unit}"
    return f"{rounded(seconds)} s"


def rounded(shown: float) -> str:
    """A number below a thousand in three figures."""
    return f"{shown:.{0 if shown >= 99.5 else 1 if shown >= 9.95 else 2}f}"  # noqa: PLR2004 - where rounding adds one


def money(usd: float, most_usd: float) -> str:
    """USD to the cent, or to three figures of the largest sum beside it where that is smaller."""
    digits = 2 if most_usd >= 1 or most_usd <= 0 else 2 - floor(log10(most_usd))
    return f"{'-' if usd < 0 else ''}${abs(usd):,.{digits}f}"
