"""What readers did: an outcome file (JSONL or CSV), one line a text that was shown, or a sum of many."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.errors import TemplateError


class Outcome(Struct, frozen=True, forbid_unknown_fields=True):
    """How often a variant was shown, and how often it worked."""

    template: str
    variant: int
    success: int = 0
    shown: int = 1
    segment: str = ""
    days: float | None = None
    """Days since the same reader saw it last; None: never."""


def read(file: Path) -> Iterator[Outcome]:
    """The outcomes of a `.jsonl` or `.csv` file. Raises TemplateError naming the line."""
    lines = _csv if file.suffix == ".csv" else _jsonl
    try:
        for number, outcome in lines(file):
            yield _sound(outcome, file, number)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TemplateError(f"cannot be read: {error}", file=str(file)) from error


def _jsonl(file: Path) -> Iterator[tuple[int, Outcome]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, msgspec.json.decode(line, type=Outcome)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise TemplateError(f"no outcome: {error}", file=str(file), line=number) from error


def _csv(file: Path) -> Iterator[tuple[int, Outcome]]:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        for row in rows:
            filled = {name: text for name, text in row.items() if text}
            try:
                yield rows.line_num, msgspec.convert(filled, Outcome, strict=False)
            except msgspec.ValidationError as error:
                raise TemplateError(f"no outcome: {error}", file=str(file), line=rows.line_num) from error


def _sound(outcome: Outcome, file: Path, line: int) -> Outcome:
    wrong = ""
    if outcome.variant < 0:
        wrong = f"variant {outcome.variant}: counts from 0"
    elif not 0 <= outcome.success <= outcome.shown:
        wrong = f"{outcome.success} successes of {outcome.shown} shows: none to all of them"
    elif outcome.days is not None and outcome.days < 0:
        wrong = f"{outcome.days} days ago: not in the future"
    if wrong:
        raise TemplateError(wrong, file=str(file), line=line)
    return outcome
