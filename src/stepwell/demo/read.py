"""Read a run back from the ledger: nothing in the table or the picture is counted anywhere else."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from math import ceil
from pathlib import Path

import msgspec

from stepwell.demo.story import Descent, Example, Row, Story
from stepwell.errors import StoreError
from stepwell.ledger import prices
from stepwell.ledger.rollup import Line, rollup, total

ENTRIES = "SELECT visits, step, seconds, usd, large_usd FROM entries ORDER BY at_s - seconds"
PRICED = "house-writer"


def told(
    ledger: Path, *, title: str, examples: tuple[Example, ...], num_distinct: int, num_errors: int, wall_s: float
) -> Story:
    """Make a run's story. Raises StoreError where the ledger cannot be read."""
    lines = rollup(ledger, "step")
    ways = descents(ledger)
    seconds = sorted(way.seconds for way in ways)
    return Story(
        title=title,
        descents=ways,
        rows=tuple(row(line) for line in lines),
        total=msgspec.structs.replace(
            row(total(lines)), step="", p50_s=percentile(seconds, 0.5), p99_s=percentile(seconds, 0.99)
        ),
        examples=examples,
        num_distinct=num_distinct,
        num_errors=num_errors,
        wall_s=wall_s,
        priced_as=priced_as(),
    )


def row(line: Line) -> Row:
    """A line of the rollup, as the table shows it."""
    return Row(
        step=line.name,
        num=line.requests,
        share=line.share,
        p50_s=line.p50_s,
        p99_s=line.p99_s,
        tokens=line.input_tokens + line.output_tokens,
        usd=line.usd,
        large_usd=line.large_usd,
    )


def descents(ledger: Path) -> tuple[Descent, ...]:
    """Every request's way down, in the order of their coming. Raises StoreError."""
    try:
        with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(ENTRIES).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"the ledger {ledger} cannot be read ({error})") from error
    return tuple(
        Descent(
            visits=tuple((visit[0], visit[3]) for visit in msgspec.json.decode(visits)),
            step=step,
            seconds=seconds,
            usd=usd,
            large_usd=large_usd,
        )
        for visits, step, seconds, usd, large_usd in rows
    )


def percentile(ordered: Sequence[float], part: float) -> float:
    """The nearest rank in sorted values; 0 where there are none."""
    return ordered[ceil(part * len(ordered)) - 1] if ordered else 0.0


def priced_as() -> str:
    """Say as which model the house writer is priced, and since when."""
    listed = prices.load()
    model, price = listed.stands_for.get(PRICED, PRICED), prices.price_of(listed, PRICED)
    return (
        f"The house writer runs in this process and has no price of its own: it is priced as {model} "
        f"(${price.input_usd:.2f} and ${price.output_usd:.2f} per million tokens in and out, {price.date})."
    )
