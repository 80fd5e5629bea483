"""What the gate found, for every slice with its reason: signed, shown, and read again before anything is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stepwell.errors import DistillError

FILE = "verdict.json"
Found = Literal["non-inferior", "inferior", "not shown", "cannot tell"]
"""non-inferior: shown to be worse by less than the margin; inferior: shown to be worse by more; not shown: neither;

cannot tell: too few pairs, whose outcome was therefore not looked at.
"""
Metric = Literal["right", "bleu"]
Decision = Literal["promote", "refuse", "cannot tell"]


class Finding(Struct, frozen=True):
    """One test of one slice. Shares are fractions, BLEU is 0 to 100; the bounds are one-sided, of `alpha` each."""

    slice: str
    metric: Metric
    found: Found
    reason: str
    num_pairs: int
    num_needed: int
    margin: float
    student: float = 0.0
    teacher: float = 0.0
    low: float = 0.0
    """Bounds of student minus teacher."""
    high: float = 0.0
    p: float = 1.0
    p_holm: float = 1.0
    """Adjusted for the number of tests."""


class Report(Struct, frozen=True):
    """A verdict on one model file. `plan` is the plan as it was stated before."""

    decision: Decision
    reason: str
    findings: list[Finding]
    plan: dict[str, Any]
    plan_sha256: str
    pairs_sha256: str
    model: str
    """The SHA-256 of the model file that was judged; for a server's model its name."""
    at: str
    """ISO 8601, UTC."""
    num_repeated: int = 0
    """Pairs left out because their prompt was there before: a prompt counts once."""
    tries: int = 1
    """How many files were judged on these pairs, with this one."""
    num_unanswered: int = 0
    """Pairs without an answer of the teacher, which is wrong there: it refused, or was cut off."""

    @property
    def about(self) -> str:
        """The model and what it was judged on, as one hash: audits count for these, whoever judges them again."""
        return sha256(msgspec.json.encode((self.model, self.pairs_sha256))).hexdigest()

    @property
    def margin(self) -> float:
        """By how large a share of answers the student may be worse."""
        return float(self.plan["margin"])

    @property
    def slice_by(self) -> str:
        """How a prompt's slice is known where slices serve apart; empty where all passed together."""
        return str(self.plan.get("slice_by", ""))

    @property
    def alpha(self) -> float:
        """The promised probability of a wrong promotion, and of a wrong roll-back."""
        return float(self.plan["alpha"])


def passing(findings: Sequence[Finding]) -> list[str]:
    """The slices that passed every test, in order."""
    names = dict.fromkeys(each.slice for each in findings)
    return [name for name in names if all(each.found == "non-inferior" for each in findings if each.slice == name)]


def written(report: Report) -> bytes:
    """The text that is signed."""
    return msgspec.json.encode(report, order="deterministic")


def read(text: str | bytes, *, file: str = "") -> Report:
    """A report from its text. Raises DistillError."""
    try:
        return msgspec.json.decode(text, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DistillError(f"is no verdict of the gate: {error}", file=file) from error


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    yield f"{report.decision}: {report.reason}"
    yield f"judged {report.at}: model {report.model[:16] or 'not named'}, {ordinal(report.tries)} judged on these pairs"
    for each in report.findings:
        yield f"  {each.slice:<16} {each.metric:<6} {each.found:<13} {each.reason}"
    if report.num_repeated:
        yield f"{report.num_repeated} pairs repeat a prompt: each prompt counts once"
    if report.num_unanswered:
        yield f"{report.num_unanswered} prompts have no answer of the teacher: it counts as wrong there"
    yield f"plan {report.plan_sha256[:16]}, pairs {report.pairs_sha256[:16]}"


def ordinal(number: int) -> str:
    """1 as a word."""
    return "the first" if number == 1 else f"number {number}"
