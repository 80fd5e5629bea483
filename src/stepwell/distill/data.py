"""Examples: what the student reads and what it should say, as texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stepwell.errors import DistillError
from stepwell.store import tables


class Example(NamedTuple):
    """A prompt and the text to learn behind it; `id` finds the teacher's stored probabilities."""

    prompt: str
    completion: str
    weight: float = 1.0
    id: str = ""


def examples(path: Path, split: str = "") -> list[Example]:
    """Read rows with `prompt` and `completion`, or with `messages`; of one split, where one is named.

    A row of weight 0 is left out.

    Raises DistillError with the row where something is missing, and StoreError where the file is damaged.
    """
    found = [
        example(row, file=str(path), line=line)
        for line, row in enumerate(tables.read(path), 1)
        if (not split or row.get("split") == split) and row.get("weight") != 0
    ]
    if not found:
        raise DistillError(f"no rows{f' of split {split!r}' if split else ''} to learn from", file=str(path))
    return found


def example(row: tables.Record, *, file: str, line: int) -> Example:
    """One row as an example. Raises DistillError."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if not prompt and row.get("messages"):
        prompt, completion = turns(row["messages"])
    if not isinstance(prompt, str) or not isinstance(completion, str) or not completion.strip():
        raise DistillError("a row needs the texts `prompt` and `completion`, or `messages`", file=file, line=line)
    weight = 1.0 if row.get("weight") is None else row["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise DistillError(
            f"`weight` is {weight!r:.60}: a number above 0, or 0 to leave the row out", file=file, line=line
        )
    return Example(prompt, completion, float(weight), str(row.get("id") or ""))


def turns(messages: Iterable[dict[str, str]]) -> tuple[str | None, str | None]:
    """The last user message and the answer to it."""
    last: dict[str, str] = {message["role"]: message["content"] for message in messages}
    return last.get("user"), last.get("assistant")


def digest(rows: Iterable[Example]) -> str:
    """sha256 of the examples, for provenance."""
    total = hashlib.sha256()
    for row in rows:
        total.update(f"{row.prompt}\0{row.completion}\0{row.weight}\0".encode())
    return total.hexdigest()
