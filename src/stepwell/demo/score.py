"""How good the served texts are: BLEU against human ones, and slot errors by two checkers written apart."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from stepwell.errors import StepwellError
from stepwell.quality import slots, slots_apart
from stepwell.quality.text import bleu

COLUMNS = {"mr", "ref"}
Counted = slots.Errors | slots_apart.Errors
"""What either checker found."""


class DataError(StepwellError):
    """A file of inputs and human texts is missing or not what it should be."""

    code = "data_error"


class Score(Struct, frozen=True):
    """BLEU (0 to 100) with its signature, and slot error rates (0 to 1) by either checker."""

    bleu: float
    signature: str
    slot_errors: float
    slot_errors_apart: float


def read(path: Path) -> dict[str, list[str]]:
    """Human texts of each input, in the file's order. Raises DataError saying what is wrong, and where."""
    texts: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if lacking := COLUMNS - set(rows.fieldnames or ()):
                named = ", ".join(rows.fieldnames or ()) or "none"
                raise DataError(f"{path}:1: the columns {sorted(lacking)} are missing (found: {named})")
            for row in rows:
                check(row, f"{path}:{rows.line_num}")
                texts.setdefault(row["mr"], []).append(row["ref"])
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); name a CSV file with columns mr and ref"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV file in UTF-8: {error}") from error
    if not texts:
        raise DataError(f"{path}: holds no rows")
    return texts


def check(row: Mapping[str, str | None], place: str) -> None:
    """Raise DataError where a row has no facts or no text."""
    if not row["ref"]:
        raise DataError(f"{place}: the text (column ref) is missing")
    try:
        slots.facts_of(row["mr"] or "")
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error


def score(said: Mapping[str, str], texts: Mapping[str, Sequence[str]]) -> Score:
    """Score one text an input against all its human ones."""
    counted = bleu(list(said.values()), [texts[mr] for mr in said])
    rates = error_rate(said, slots.errors), error_rate(said, slots_apart.errors)
    return Score(counted.score, counted.signature, *rates)


def human(texts: Mapping[str, Sequence[str]]) -> Score:
    """Score the first human text of each input that has several against the others."""
    several = {mr: list(said) for mr, said in texts.items() if len(said) > 1}
    return score({mr: said[0] for mr, said in several.items()}, {mr: said[1:] for mr, said in several.items()})


def error_rate(said: Mapping[str, str], errors: Callable[[Mapping[str, str], str], Counted]) -> float:
    """SER = (missing + wrong + added) / slots of the inputs."""
    pairs = [(slots.facts_of(mr), text) for mr, text in said.items()]
    num_slots = sum(len(facts) for facts, _ in pairs)
    return sum(num_errors(errors(facts, text)) for facts, text in pairs) / max(1, num_slots)


def num_errors(found: Counted) -> int:
    """Errors of all three kinds."""
    return sum(len(kind) for kind in (found.missing, found.wrong, found.added))


def lines(served: Score, by_humans: Score) -> Iterable[str]:
    """The scores as they are printed."""
    yield f"{'':20}{'served':>8}{'human':>8}"
    yield f"{'BLEU':20}{served.bleu:8.2f}{by_humans.bleu:8.2f}   human: first text against the others"
    yield f"{'slot errors':20}{served.slot_errors:8.2%}{by_humans.slot_errors:8.2%}   by quality/slots.py"
    apart = f"{served.slot_errors_apart:8.2%}{by_humans.slot_errors_apart:8.2%}"
    yield f"{'slot errors, apart':20}{apart}   by quality/slots_apart.py"
    yield f"signature: {served.signature}"
