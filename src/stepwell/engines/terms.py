"""Whose answers may be learned from: a dated, sourced table; a teacher whose terms restrict that needs your word."""

from __future__ import annotations

import datetime as dt
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Literal
from urllib.parse import urlsplit

from stepwell.errors import DistillError
from stepwell.toml import Section, typed

SHIPPED = "terms.toml"
UNKNOWN = "the catalogue of terms does not know this teacher: see whether its terms let you train on its answers"


class Terms(Section, frozen=True):
    """One row: for servers by host, for models by name, wherever they run (`*` stands for anything)."""

    training: Literal["allowed", "restricted"]
    says: str
    source: str
    date: dt.date
    hosts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.training} (as of {self.date}): {self.says}; {self.source}"


def catalogue() -> dict[str, Terms]:
    """The table that ships."""
    text = (files("stepwell.engines") / SHIPPED).read_text(encoding="utf-8")
    found: dict[str, Terms] = typed(text, dict[str, Terms], file=SHIPPED)
    return found


def terms_of(url: str, model: str) -> Terms | None:
    """The row of a teacher: the model's before the server's, the most exact pattern first; None: not known."""
    rows = catalogue().values()
    name = model.lower()
    fits = [(len(each), row) for row in rows for each in row.models if fnmatchcase(name, each)]
    if fits:
        return max(fits, key=lambda fit: (fit[0], fit[1].training))[1]
    host = urlsplit(url).hostname or ""
    return next((row for row in rows if host in row.hosts), None)


def check(url: str, model: str, *, i_may: bool) -> str:
    """What the terms say. Raises DistillError where they restrict training and nobody said that he may."""
    row = terms_of(url, model)
    if row is None:
        return UNKNOWN
    if row.training == "restricted" and not i_may:
        what = f"the terms of the teacher {model!r} restrict training on its answers: {row.told}"
        raise DistillError(f"{what}. Where you may all the same, say so with --i-may")
    return row.told
