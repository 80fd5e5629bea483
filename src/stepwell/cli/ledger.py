"""`stepwell ledger`: what was asked, where it was answered, what it cost and what that saved."""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell import config as configuration
from stepwell.ledger.rollup import CHOICES, Line, rollup, total

if TYPE_CHECKING:
    from argparse import _SubParsersAction

SPANS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LARGE_SUM_USD, SMALL_SUM_USD = 1000, 1
HEADS = (
    "",
    "visits",
    "requests",
    "share",
    "p50 ms",
    "p99 ms",
    "in tokens",
    "out tokens",
    "USD",
    "large USD",
    "saved USD",
    "saved",
    "failed",
)
VISITS = HEADS.index("visits")


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("ledger", help="what was asked, what it cost, what it saved", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, default=Path("stepwell.toml"), help="default: stepwell.toml")
    where.add_argument("--path", type=Path, help="a ledger file, instead of the one of the configuration")
    parser.add_argument("--since", type=since, default=0.0, help="a date (2026-11-01) or a span (90m, 24h, 7d)")
    parser.add_argument("--by", choices=CHOICES, default="step")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true")
    shape.add_argument("--csv", action="store_true")
    parser.set_defaults(run=run)


def since(text: str) -> float:
    """Seconds since 1970 from a date, a time, or a span back from now. Raises ArgumentTypeError."""
    if span := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        return dt.datetime.now(dt.UTC).timestamp() - int(span[1]) * SPANS_S[span[2]]
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        what = f"{text!r} is neither a date (2026-11-01) nor a span (90m, 24h, 7d, 4w)"
        raise argparse.ArgumentTypeError(what) from error
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp()


def run(given: argparse.Namespace) -> int:
    """Print the rollup as a table, JSON or CSV. Raises ConfigError and StoreError."""
    path = given.path or configuration.load(given.config, secrets=False).ledger.path
    lines = rollup(path, given.by, given.since)
    if given.json:
        told = {"by": given.by, "since_s": given.since, "lines": lines, "total": total(lines)}
        print(json.dumps(msgspec.to_builtins(told)))
    elif given.csv:
        write_csv(lines)
    elif lines:
        write_table(lines, given.by)
    else:
        print(f"The ledger {path} has no entries{' since then' if given.since else ' yet'}.")
    return 0


def write_csv(lines: list[Line]) -> None:
    """One line a row, the names of the columns first."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([field.name for field in msgspec.structs.fields(Line)])
    writer.writerows(msgspec.structs.astuple(line) for line in lines)


def write_table(lines: list[Line], by: str) -> None:
    """Columns as wide as what stands in them, and what must be said about the figures."""
    everything = total(lines)
    digits = decimals(max(everything.usd, everything.large_usd))
    rows = [HEADS, *(cells(line, digits) for line in lines), cells(everything, digits)]
    if by != "step":
        rows = [row[:VISITS] + row[VISITS + 1 :] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        if number in (1, len(rows) - 1):
            print("  ".join("-" * width for width in widths))
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([row[0].ljust(widths[0]), *numbers]))
    if everything.estimated_share:
        print(f"\n{everything.estimated_share:.1%} of requests: what the large model would have cost is estimated.")


def decimals(most_usd: float) -> int:
    """Digits after the point that suit sums of this size."""
    if most_usd >= LARGE_SUM_USD:
        return 2
    return 4 if most_usd >= SMALL_SUM_USD else 6


def cells(line: Line, digits: int) -> tuple[str, ...]:
    """One row as it is shown; the total has no percentiles of its own."""
    timed = line.p99_s > 0
    return (
        line.name,
        f"{line.visits:,}",
        f"{line.requests:,}",
        f"{line.share:.1%}",
        f"{line.p50_s * 1000:,.2f}" if timed else "",
        f"{line.p99_s * 1000:,.2f}" if timed else "",
        f"{line.input_tokens:,}",
        f"{line.output_tokens:,}",
        f"{line.usd:,.{digits}f}",
        f"{line.large_usd:,.{digits}f}",
        f"{line.saved_usd:,.{digits}f}",
        f"{line.saved_share:.1%}" if line.large_usd else "",
        f"{line.failed:,}",
    )
