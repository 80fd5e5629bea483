"""The gate's folder: the plan, sealed before the data; who judged which pairs; the signed verdict.

    plan.json      the plan with the number of pairs it needs, signed
    judged.jsonl   one line a judgement, written before any answer is looked at
    verdict.json   the last report, signed

A plan may be changed until pairs were judged by it, and not after. Pairs may be judged for as many model files as the
plan says: whoever tries again and again on the same pairs passes some day by luck.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.alone import alone
from stepwell.errors import DistillError
from stepwell.quality.compare import GatePlan, Pair, check_references, judge, plan_sha256, ready, rightness, sliced
from stepwell.quality.files import append, lay
from stepwell.quality.verdict import FILE as VERDICT
from stepwell.quality.verdict import Report, written
from stepwell.quality.verify import Verify
from stepwell.signing import SigningKey, Trusted, authentic, signed, trusted

PLAN, JUDGED = "plan.json", "judged.jsonl"
ALONE = "gate"
PROMPT_CHARS = 16


class Sealed(Struct, frozen=True):
    """A plan as it was stated, and when."""

    plan: GatePlan
    sha256: str
    num_pairs: int
    """That each slice needs."""
    at: str


class Judged(Struct, frozen=True):
    """One judgement: what was looked at."""

    at: str
    plan: str
    model: str
    answers: str
    """The model, its answers and what they are compared with, as one hash."""
    prompts: list[str]


def seal(folder: Path, plan: GatePlan, key: SigningKey) -> Sealed:
    """State the plan, or find it stated. Raises DistillError where another one was, and pairs were judged by it."""
    with working(folder):
        return sealed(folder, plan, key)


def gate(
    folder: Path,
    plan: GatePlan,
    pairs: Sequence[Pair],
    *,
    model: str,
    key: SigningKey,
    verify: Verify | None = None,
    trained_on: Collection[str] = (),
) -> Report:
    """Judge within the folder, and leave the signed verdict there. `trained_on`: prompts that the student has seen.

    Raises DistillError where the plan was changed after pairs were judged, the pairs have judged too many files, or the
    student was trained on one of them; NotAuthentic where the plan was not signed with this key.
    """
    check_held_out(pairs, trained_on)
    rightness(plan, verify)  # a verifier that is not there uses no try up
    with working(folder):
        sealed(folder, plan, key)
        tries = noted(folder, plan, pairs, model)
        report = judge(plan, pairs, verify, model=model, tries=tries)
        lay(folder / VERDICT, signed(written(report), key))
    return report


def check_held_out(pairs: Sequence[Pair], trained_on: Collection[str]) -> None:
    """Raise DistillError where the student was trained on what it is judged by, but for case and white space."""
    seen = {plain(prompt) for prompt in trained_on}
    for pair in pairs:
        if plain(pair.prompt) in seen:
            raise DistillError(f"pair {pair.id!r} is in the training data: judge by prompts the student never saw")


def plain(prompt: str) -> str:
    """A prompt but for case and white space, as `synth.leaks` compares them."""
    return " ".join(prompt.casefold().split())


def sealed(folder: Path, plan: GatePlan, key: SigningKey) -> Sealed:
    """The plan of the folder; stated now where there is none, or where another one has judged nothing yet."""
    path = folder / PLAN
    wanted = Sealed(plan, plan_sha256(plan), plan.needed(), now())
    if path.exists():
        found = stated(path, trusted((), key))
        if found.sha256 == wanted.sha256:
            return found
        judgements = list(judged(folder))
        if judgements:
            what = f"the plan of {found.at} was changed ({changes(found.plan, plan)}) after pairs were judged by it"
            raise DistillError(f"{what} on {judgements[0].at}; judge other pairs, in another folder", file=str(path))
    lay(path, signed(msgspec.json.encode(wanted, order="deterministic"), key))
    return wanted


def stated(path: Path, keys: Trusted) -> Sealed:
    """Read a sealed plan. Raises DistillError, and NotAuthentic where it was changed."""
    text = authentic(path.read_bytes(), keys)
    try:
        return msgspec.json.decode(text, type=Sealed)
    except msgspec.DecodeError as error:
        raise DistillError(f"is no plan of the gate: {error}", file=str(path)) from error


def changes(old: GatePlan, new: GatePlan) -> str:
    """What differs between two plans."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    return ", ".join(f"{name} {before[name]} to {after[name]}" for name in before if before[name] != after[name])


def noted(folder: Path, plan: GatePlan, pairs: Sequence[Pair], model: str) -> int:
    """Write down that these pairs are judged, before they are; how many files they have judged, with this one.

    Where nothing will be looked at, nothing is noted. Raises DistillError where a pair lacks references for BLEU.
    """
    by_slice = sliced(plan, pairs)[0]
    looked_at = ready(plan, by_slice, plan.needed())
    if not looked_at:
        return 1
    for name in looked_at if plan.bleu_margin else ():
        check_references(by_slice[name])
    answers = sha256(msgspec.json.encode((model, sorted(pairs, key=lambda pair: pair.id)))).hexdigest()
    prompts = [sha256(pair.prompt.encode()).hexdigest()[:PROMPT_CHARS] for pair in pairs]
    before = list(judged(folder))
    others = {each.answers for each in before if not set(prompts).isdisjoint(each.prompts)} - {answers}
    tries = len(others) + 1
    if tries > plan.tries:
        what = f"these pairs have judged {len(others)} of the {plan.tries} model files that the plan allows"
        raise DistillError(f"{what}; give pairs that nobody has looked at", file=str(folder / JUDGED))
    if answers not in {each.answers for each in before}:
        append(folder / JUDGED, msgspec.json.encode(Judged(now(), plan_sha256(plan), model, answers, prompts)))
    return tries


def judged(folder: Path) -> Iterator[Judged]:
    """Every judgement so far; a last line that a killed process left half-written judged nothing."""
    path = folder / JUDGED
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        try:
            yield msgspec.json.decode(line, type=Judged)
        except msgspec.DecodeError as error:
            raise DistillError(f"a line cannot be read: {error}", file=str(path)) from error


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """Be the only process at work in the folder. Raises DistillError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / ALONE):
            yield
    except (sqlite3.Error, OSError) as error:
        raise DistillError(f"the folder cannot be used: {error}", file=str(folder)) from error


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
