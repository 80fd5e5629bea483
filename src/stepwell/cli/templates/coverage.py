"""`stepwell templates coverage`: which share of requests templates answer, and what the next batch should write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from stepwell.cli.templates.needs import check_extra
from stepwell.cli.templates.publish import bytes_of
from stepwell.errors import TemplateError
from stepwell.ledger.rollup import reasons

NUM_SHOWN = 20
NO_BLANKS = "meaning: no blanks for "
"""How the cache's visit begins where the same question with other values could not be answered by putting them in."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("coverage", help="what templates answer, and what to write next", description=__doc__)
    parser.add_argument("--bundle", type=Path, metavar="LOCALE.json", help="try the requests on this bundle")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--requests", type=Path, metavar="FILE", help="JSONL: values, or chat requests whose last message is one"
    )
    source.add_argument(
        "--ledger", type=Path, metavar="FILE", help="a ledger.db: what the step did, and why it deferred"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print the table. Raises TemplateError."""
    check_extra()
    from rich.console import Console  # noqa: PLC0415 - needs the extra
    from rich.table import Table  # noqa: PLC0415

    console, table = Console(), Table("what the next batch should write", "requests", "share")
    if given.ledger:
        counts = reasons(given.ledger, "template")
        num = sum(counts.values())
        console.print(f"{counts.pop('', 0) / max(1, num):.1%} of {num:,} requests answered by a template")
        rows = [(reason, count, count / num) for reason, count in {**counts, **lacking(given.ledger)}.items()]
        rows.sort(key=lambda row: -row[1])
    else:
        from stepwell.templates.coverage import coverage  # noqa: PLC0415
        from stepwell.templates.fill import load  # noqa: PLC0415

        if given.bundle is None:
            raise TemplateError("--requests needs --bundle: the texts to try")
        found = coverage(load(bytes_of(given.bundle)), values_in(given.requests))
        told = f"{found.unfit:,} with values that do not fit, {found.other:,} without structured input"
        console.print(f"{found.share:.1%} of {found.num:,} requests answered; {told}")
        rows = [(each.name, each.num, each.share) for each in found.missing]
    for name, count, share in rows[:NUM_SHOWN]:
        table.add_row(name, f"{count:,}", f"{share:.1%}")
    if rows:
        console.print(table)
    return 0


def lacking(ledger: Path) -> dict[str, int]:
    """Questions whose cached answer lacked only blanks for other values: by the kinds of those values."""
    counts = reasons(ledger, "cache")
    return {
        f"blanks for {reason.removeprefix(NO_BLANKS)}": count
        for reason, count in counts.items()
        if reason.startswith(NO_BLANKS)
    }


def values_in(file: Path) -> Iterator[dict[str, Any] | None]:
    """The values of each line. Raises TemplateError with file and line."""
    for number, line in enumerate(bytes_of(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TemplateError(f"no JSON object: {error}", file=str(file), line=number) from error
        yield values_of(told)


def values_of(told: dict[str, Any]) -> dict[str, Any] | None:
    """A request's values: its last message as JSON, or the line itself where it is no chat."""
    messages = told.get("messages")
    if not isinstance(messages, list):
        return told
    content = messages[-1].get("content") if messages and isinstance(messages[-1], dict) else None
    try:
        return msgspec.json.decode(content, type=dict[str, Any]) if isinstance(content, str) else None
    except msgspec.DecodeError:
        return None
