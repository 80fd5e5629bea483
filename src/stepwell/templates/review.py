"""The approval queue: what passed the check waits here for a person; every decision is kept at once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from stepwell.errors import TemplateError

Choice = Literal["approve", "reject", "edit"]


class Draft(Struct, frozen=True):
    """One variant of a template in one locale."""

    locale: str
    name: str
    source: str
    origin: str = ""
    """Who wrote it: teacher, writer, harvest, person."""

    @property
    def id(self) -> str:
        """The same for the same words in the same place."""
        return sha256(f"{self.locale}\0{self.name}\0{self.source}".encode()).hexdigest()[:16]


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """What a person said of a draft; `source` is the text that takes its place (edit)."""

    id: str
    choice: Choice
    reason: str = ""
    source: str = ""


class Queue(Struct, frozen=True):
    """The decisions so far, in a file to which lines are only added; the last one on a draft counts."""

    file: Path

    def decisions(self) -> dict[str, Decision]:
        """By draft. A line that a kill cut short is no decision. Raises TemplateError for other nonsense."""
        try:
            lines = self.file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        found = {}
        for number, line in enumerate(lines[:-1], 1):
            try:
                decision = msgspec.json.decode(line, type=Decision)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise TemplateError(
                    f"no decision: {error}; remove the line", file=str(self.file), line=number
                ) from error
            found[decision.id] = decision
        return found

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Keep decisions: they are on the disk when this returns."""
        data = b"".join(msgspec.json.encode(each) + b"\n" for each in decisions)
        with self.file.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end and _byte_at(self.file, end - 1) != b"\n":
                file.truncate(_last_line(self.file))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _byte_at(file: Path, place: int) -> bytes:
    return file.read_bytes()[place : place + 1]


def _last_line(file: Path) -> int:
    """Where the line begins that a kill cut short."""
    return file.read_bytes().rfind(b"\n") + 1


def sorted_out(drafts: Iterable[Draft], decisions: dict[str, Decision]) -> tuple[list[Draft], list[Draft]]:
    """The approved drafts, edited ones in their new words; and those that still wait."""
    approved, waiting = [], []
    for draft in drafts:
        decision = decisions.get(draft.id)
        if decision is None:
            waiting.append(draft)
        elif decision.choice == "approve":
            approved.append(draft)
        elif decision.choice == "edit":
            approved.append(Draft(draft.locale, draft.name, decision.source, "person"))
    return approved, waiting
