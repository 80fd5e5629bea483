"""The ledger summed up: by step, tenant, model or day."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from stepwell.errors import StoreError

By = Literal["step", "how", "tenant", "model", "day"]
CHOICES: tuple[str, ...] = get_args(By)
COLUMN = {
    "step": "CASE step WHEN '' THEN 'unanswered' ELSE step END",
    "how": """CASE step WHEN '' THEN 'unanswered' WHEN 'cache' THEN CASE
        WHEN json_extract(visits, '$[#-1][2]') LIKE 'hit: semantic%' THEN 'cache: semantic'
        WHEN json_extract(visits, '$[#-1][2]') LIKE 'hit: slot_fill%' THEN 'cache: slot_fill'
        ELSE 'cache: exact' END ELSE step END""",
    "tenant": "tenant",
    "model": "model",
    "day": "date(at_s, 'unixepoch')",
}
STAIRS = ("template", "cache", "specialist", "large", "unanswered")
SUMS = """
SELECT {column}, count(*), sum(input_tokens), sum(output_tokens), sum(usd), sum(large_usd), avg(large_estimated),
    sum(status >= 400)
FROM entries WHERE at_s >= ? GROUP BY 1 ORDER BY 1
"""
SECONDS = "SELECT {column}, seconds FROM entries WHERE at_s >= ?"
VISITS = """
SELECT json_extract(visit.value, '$[0]'), count(*)
FROM entries, json_each(entries.visits) AS visit WHERE at_s >= ? GROUP BY 1
"""

REASONS = """
SELECT CASE json_extract(visit.value, '$[1]') WHEN 'answered' THEN '' ELSE json_extract(visit.value, '$[2]') END,
    count(*)
FROM entries, json_each(entries.visits) AS visit
WHERE json_extract(visit.value, '$[0]') = ? GROUP BY 1 ORDER BY 2 DESC
"""


class Line(Struct, frozen=True):
    """One row of a rollup. Percentiles are exact (nearest rank)."""

    name: str
    visits: int
    """How many requests came by this step, answered or not; 0 where the rollup is not by step."""
    requests: int
    share: float
    p50_s: float
    p99_s: float
    input_tokens: int
    output_tokens: int
    usd: float
    large_usd: float
    saved_usd: float
    saved_share: float
    estimated_share: float
    """Share of the requests whose `large_usd` is an estimate."""
    failed: int


def rollup(path: str | Path, by: By, since_s: float = 0.0) -> list[Line]:
    """Sum up the entries since a time (seconds since 1970). Raises StoreError where there is no ledger."""
    if not Path(path).exists():
        raise StoreError(f"there is no ledger at {path}; start `stepwell serve`, or name another with --path")
    try:
        with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as database:
            database.execute("BEGIN")  # all figures of one moment
            rows = database.execute(SUMS.format(column=COLUMN[by]), (since_s,)).fetchall()
            seconds = ordered(database.execute(SECONDS.format(column=COLUMN[by]), (since_s,)))
            visits = dict(database.execute(VISITS, (since_s,))) if by == "step" else {}
    except sqlite3.Error as error:
        raise StoreError(f"the ledger {path} cannot be read ({error}); name another with --path") from error
    num_all = sum(row[1] for row in rows)
    made = [line(row, seconds[row[0]], visits.get(row[0], 0), num_all) for row in rows]
    return sorted(made, key=lambda each: stair(each.name)) if by == "step" else made


def reasons(path: str | Path, step: str) -> dict[str, int]:
    """How often a step answered (""), and why it did not, most first. Raises StoreError where there is no ledger."""
    if not Path(path).exists():
        raise StoreError(f"there is no ledger at {path}; start `stepwell serve`, or name another")
    try:
        with closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as database:
            return dict(database.execute(REASONS, (step,)))
    except sqlite3.Error as error:
        raise StoreError(f"the ledger {path} cannot be read ({error}); name another") from error


def ordered(rows: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """Seconds by name, sorted here: SQLite's window functions take four times as long."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for name, each in rows:
        seconds[name].append(each)
    for values in seconds.values():
        values.sort()
    return seconds


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest rank in sorted values, of which there is at least one."""
    return values[(len(values) * percent + 99) // 100 - 1]


def line(row: tuple[Any, ...], seconds: Sequence[float], visits: int, num_all: int) -> Line:
    """One row of SUMS with what follows from it."""
    name, num, into, out, usd, large_usd, estimated, failed = row
    return Line(
        name=name,
        visits=visits,
        requests=num,
        share=num / num_all,
        p50_s=percentile(seconds, 50),
        p99_s=percentile(seconds, 99),
        input_tokens=into,
        output_tokens=out,
        usd=usd,
        large_usd=large_usd,
        saved_usd=large_usd - usd,
        saved_share=(large_usd - usd) / large_usd if large_usd else 0.0,
        estimated_share=estimated,
        failed=failed,
    )


def stair(step: str) -> int:
    """How far down a step is; one that this version does not know comes last."""
    return STAIRS.index(step) if step in STAIRS else len(STAIRS)


def total(lines: list[Line]) -> Line:
    """All lines as one; percentiles do not add up and are left at 0."""
    count = sum(line.requests for line in lines)
    usd, large_usd = sum(line.usd for line in lines), sum(line.large_usd for line in lines)
    return Line(
        name="total",
        visits=sum(line.visits for line in lines),
        requests=count,
        share=1.0 if count else 0.0,
        p50_s=0.0,
        p99_s=0.0,
        input_tokens=sum(line.input_tokens for line in lines),
        output_tokens=sum(line.output_tokens for line in lines),
        usd=usd,
        large_usd=large_usd,
        saved_usd=large_usd - usd,
        saved_share=(large_usd - usd) / large_usd if large_usd else 0.0,
        estimated_share=sum(line.estimated_share * line.requests for line in lines) / count if count else 0.0,
        failed=sum(line.failed for line in lines),
    )
