"""Rows of a catalogue or an audience, from CSV, JSONL or Parquet, checked against a schema."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.errors import TemplateError
from stepwell.templates.numerals import number
from stepwell.templates.schema import Schema, Slot

READER = "reader"
"""The column that says who a row is for."""
FORMATS = (".csv", ".jsonl", ".parquet")


class Wrong(Struct, frozen=True):
    """One value that the schema does not allow."""

    file: str
    line: int
    column: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: column {self.column}: {self.reason}"


class Row(Struct, frozen=True):
    """One line: its values as text or numbers, and what is wrong with them."""

    line: int
    values: dict[str, Any]
    wrong: tuple[Wrong, ...] = ()


def read(file: Path, schema: Schema) -> Iterator[Row]:
    """Each row with what is wrong with it. Raises TemplateError where the file is no table at all."""
    lines = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}.get(file.suffix)
    if lines is None:
        raise TemplateError(f"must end in {', '.join(FORMATS)}", file=str(file))
    try:
        for line, values in lines(file):
            yield Row(line, values, tuple(complaints(schema, values, str(file), line)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TemplateError(f"cannot be read: {error}", file=str(file)) from error


def good(file: Path, schema: Schema, *, skip_bad: Path | None = None) -> Iterator[dict[str, Any]]:
    """The values of the rows that are right; wrong ones go to `skip_bad` as JSONL.

    Raises TemplateError with file, line, column and reason at the first wrong row where there is no such file.
    """
    bad = skip_bad.open("wb") if skip_bad else None
    try:
        for row in read(file, schema):
            if not row.wrong:
                yield row.values
            elif bad is None:
                first = row.wrong[0]
                what = f"column {first.column}: {first.reason}; mend it, or leave wrong rows out with --skip-bad FILE"
                raise TemplateError(what, file=first.file, line=first.line)
            else:
                told = {"line": row.line, "wrong": {each.column: each.reason for each in row.wrong}, "row": row.values}
                bad.write(msgspec.json.encode(told, enc_hook=str) + b"\n")
    finally:
        if bad:
            bad.close()


def complaints(schema: Schema, values: Mapping[str, Any], file: str, line: int) -> Iterator[Wrong]:
    """What is wrong with a row: unknown columns, values that their slot does not allow. A missing value is no wrong."""
    for column, value in values.items():
        if column == READER:
            continue
        slot = schema.slot(column)
        if slot is None:
            reason = f"no such slot; the schema has {', '.join(each.name for each in schema.slots)}"
        else:
            reason = "" if value is None or value == "" else unfit(slot, value, form=column != slot.name)
        if reason:
            yield Wrong(file, line, column, reason)


def unfit(slot: Slot, value: object, *, form: bool = False) -> str:
    """Why a slot does not take a value, or nothing."""
    if slot.kind in {"number", "money"} and not form:
        return _off_range(slot, value)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return f"{_shown(value)} is no text"
    text = str(value)
    if slot.kind == "date" and not _is_day(text, slot):
        return f"{_shown(value)} is no day from {slot.low} to {slot.high}"
    if slot.kind == "choice" and text not in slot.values:
        return f"{_shown(value)} is not one of {', '.join(slot.values)}"
    return f"{len(text)} characters, at most {slot.max_chars}" if len(text) > slot.max_chars else ""


def _off_range(slot: Slot, value: object) -> str:
    found = number(value)
    if found is None:
        return f"{_shown(value)} is no number"
    low, high = float(slot.low), float(slot.high)
    return "" if low <= found <= high else f"{_shown(value)} is not between {low:g} and {high:g}"


def _is_day(text: str, slot: Slot) -> bool:
    try:
        return str(slot.low) <= datetime.fromisoformat(text).date().isoformat() <= str(slot.high)
    except ValueError:
        return False


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - a line of a terminal


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        for row in rows:
            if None in row or None in row.values():
                raise TemplateError("not as many fields as the first line names", file=str(file), line=rows.line_num)
            yield rows.line_num, {name: text for name, text in row.items() if text != ""}


def _jsonl(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number_, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number_, msgspec.json.decode(line, type=dict[str, Any])
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise TemplateError(f"no JSON object: {error}", file=str(file), line=number_) from error


def _parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import polars as pl  # noqa: PLC0415 - an extra
    from polars.exceptions import PolarsError  # noqa: PLC0415

    try:
        line = 0
        for frame in pl.scan_parquet(file).collect_batches(chunk_size=50_000):
            for values in frame.iter_rows(named=True):
                line += 1
                yield line, {name: _plain(value) for name, value in values.items() if value is not None}
    except PolarsError as error:
        raise TemplateError(f"no Parquet file: {error}", file=str(file)) from error


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, (date, datetime)) else value
