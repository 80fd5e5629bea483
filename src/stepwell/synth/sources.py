"""Rows that people wrote: seeds, captured traffic, and the evaluation sets that nothing may leak from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stepwell.errors import DistillError, StoreError
from stepwell.store import tables
from stepwell.synth import slots
from stepwell.synth.leaks import Pair
from stepwell.synth.recipe import Captured, Recipe, Seeds, Table
from stepwell.synth.row import Message, Row, made, read

Turns = tuple[Message, ...]


def real_rows(recipe: Recipe) -> list[Row]:
    """Seeds, then captured rows. Raises StoreError with file, row and column; DistillError where there are none."""
    rows: list[Row] = []
    if recipe.synth.seeds:
        rows += seeds(recipe, recipe.synth.seeds)
    if recipe.synth.captured:
        rows += captured(recipe, recipe.synth.captured)
    return rows


def seeds(recipe: Recipe, table: Seeds) -> list[Row]:
    """The seeds' rows, each with what is known of it."""
    rows: list[Row] = []
    for name in table.paths:
        path = recipe.path(name)
        num_before = len(rows)
        for number, record in enumerate(tables.read(path), 1):
            rows += [
                made(
                    prompt,
                    completion,
                    source="seed",
                    licence=table.licence,
                    slots=slots_of(record, prompt),
                    messages=turns or (Message("user", prompt), Message("assistant", completion)),
                )
                for prompt, completion, turns in told(record, table, path, number)
            ]
        if len(rows) == num_before:
            raise DistillError("holds no row: name a file with some, or take it out of synth.seeds", file=str(path))
    return spread(rows, table.rows)


def captured(recipe: Recipe, table: Captured) -> list[Row]:
    """Kept traffic. It may be none: then nobody has asked yet, or no tenant allows it."""
    rows = [row for name in table.paths for row in read(recipe.path(name))]
    for row in rows:
        if row.source != "captured":
            what = f"row {row.id} is {row.source!r}, not captured: such rows belong to [synth.seeds]"
            raise DistillError(what, file=", ".join(table.paths))
    return spread(rows, table.rows)


def spread(rows: Sequence[Row], num: int | None) -> list[Row]:
    """Only so many, taken evenly from all."""
    num = len(rows) if num is None else min(num, len(rows))
    return [rows[at * len(rows) // num] for at in range(num)]


def held_out(recipe: Recipe) -> Iterator[Pair]:
    """Prompt and completion of every evaluation row. Raises StoreError, DistillError where a set is empty."""
    for table in recipe.synth.held_out:
        for name in table.paths:
            path = recipe.path(name)
            pairs = [
                (prompt, completion)
                for number, record in enumerate(tables.read(path), 1)
                for prompt, completion, _ in told(record, table, path, number)
            ]
            if not pairs:
                raise DistillError("an evaluation set without a row: leaks from it cannot be seen", file=str(path))
            yield from pairs


def told(record: Mapping[str, Any], table: Table, path: Path, number: int) -> Iterator[tuple[str, str, Turns]]:
    """Prompt and completion of a record, several where it has several completions. Raises StoreError."""
    if record.get(table.prompt) is None and "messages" in record:
        yield from talk(record["messages"], path, number)
        return
    prompt = record.get(table.prompt)
    if not isinstance(prompt, str) or not prompt.strip():
        what = "is empty" if isinstance(prompt, str) else f"is no text; the row has {', '.join(map(str, record))}"
        raise StoreError(f"{path}: row {number}: {table.prompt} {what}")
    completions = record.get(table.completion)
    for completion in completions if isinstance(completions, list) else [completions or ""]:
        if not isinstance(completion, str):
            raise StoreError(f"{path}: row {number}: {table.completion} is neither text nor a list of texts")
        yield prompt, completion, ()


def talk(messages: object, path: Path, number: int) -> Iterator[tuple[str, str, Turns]]:
    """A talk in OpenAI's form: the last answer, and what the user said before it."""
    try:
        turns = msgspec.convert(messages, tuple[Message, ...])
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: row {number}: messages: {error}") from error
    answered = bool(turns) and turns[-1].role == "assistant"
    asked = turns[:-1] if answered else turns
    if not asked or asked[-1].role != "user" or not asked[-1].content.strip():
        raise StoreError(f"{path}: row {number}: messages: no turn of the user before the answer")
    yield asked[-1].content, turns[-1].content if answered else "", turns


def slots_of(record: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """The slots that a record names, else those of its prompt."""
    named = record.get("slots")
    found = slots.read(prompt)
    return dict(named) if isinstance(named, dict) else dict(found.slots) if found else {}
