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
HEADS = (
    "",
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
)


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
    if span := re.fullmatch(r"(\d+)([mhdw])", text):
        return dt.datetime.now(dt.UTC).timestamp() - int(span[1]) * SPANS_S[span[2]]
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a date nor a span such as 24h or 7d") from error
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp()


def run(given: argparse.Namespace) -> int:
    """Print the rollup as a table, JSON or CSV."""
    path = given.path or configuration.load(given.config, secrets=False).ledger.path
    lines = rollup(path, given.by, given.since)
    if given.json:
        print(
            json.dumps(
                {"by": given.by, "lines": msgspec.to_builtins(lines), "total": msgspec.to_builtins(total(lines))}
            )
        )
    elif given.csv:
        write_csv(lines)
    elif lines:
        write_table(lines)
    else:
        print("no entries in this time")
    return 0


def write_csv(lines: list[Line]) -> None:
    """One line a row, the names of the columns first."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([field.name for field in msgspec.structs.fields(Line)])
    writer.writerows(msgspec.structs.astuple(line) for line in lines)


def write_table(lines: list[Line]) -> None:
    """Columns as wide as what stands in them."""
    everything = total(lines)
    rows = [HEADS, *(cells(line) for line in lines), cells(everything)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADS))]
    for number, row in enumerate(rows):
        if number in (1, len(rows) - 1):
            print("  ".join("─" * width for width in widths))
        print(
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
        )
    if everything.estimated_share:
        print(f"\n{everything.estimated_share:.1%} of what the large model would have cost is estimated, not audited.")
    if everything.failed:
        print(f"{everything.failed} requests failed.")


def cells(line: Line) -> tuple[str, ...]:
    """One row as it is shown."""
    return (
        line.name,
        f"{line.requests:,}",
        f"{line.share:.1%}",
        f"{line.p50_s * 1000:.2f}" if line.p99_s else "",
        f"{line.p99_s * 1000:.2f}" if line.p99_s else "",
        f"{line.input_tokens:,}",
        f"{line.output_tokens:,}",
        f"{line.usd:.6f}",
        f"{line.large_usd:.6f}",
        f"{line.saved_usd:.6f}",
        f"{line.saved_usd / line.large_usd:.1%}" if line.large_usd else "",
    )
