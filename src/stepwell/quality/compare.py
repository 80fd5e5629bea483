"""The gate: whether the student is, slice by slice, worse than the teacher by less than a margin stated before.

Paired non-inferiority on the same held-out prompts: shares of right answers by Tango's score test (`paired.py`), BLEU
by a studentized paired bootstrap (`resample.py`), Holm over all tests. How many pairs that takes follows from the plan
alone; with fewer the gate says so and looks no further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from stepwell.errors import ConfigError, DistillError
from stepwell.quality import paired, resample, text
from stepwell.quality.judge import normal
from stepwell.quality.slicing import slicer
from stepwell.quality.verdict import Decision, Finding, Metric, Report, passing
from stepwell.quality.verify import Verify, verifier
from stepwell.toml import Section

Share = Annotated[float, Meta(gt=0, lt=1)]
Test = tuple[str, Metric]
"""Slice and metric."""
SAME = "same"
"""In the place of a verifier: right is what says the same as the teacher."""
ALL = "all"
"""The slice of a plan that names none."""


class GatePlan(Section, frozen=True):
    """`[gate]`: what is to be shown, and by how many pairs; stated before anybody looks at an answer."""

    verify: str = "slots"
    """What makes an answer right: slots, slots_apart, values, module:function, or same: as the teacher's."""
    margin: Share = 0.02
    """The student's share of right answers may be lower by less than this."""
    bleu_margin: Annotated[float, Meta(ge=0, lt=100)] = 0.0
    """Its BLEU may be lower by less than this; 0: BLEU is not tested. The pairs then need `references`."""
    alpha: Share = 0.05
    """Probability of letting a student pass that is worse by the whole margin, over all slices."""
    power: Share = 0.95
    """Probability that one as good as the teacher passes."""
    slices: tuple[str, ...] = ()
    """Each must pass, unless `slice_by` is given. None: all pairs are one slice."""
    slice_by: str = ""
    """How a prompt's slice is known: slot:NAME or module:function. Then slices that pass serve without the others."""
    discordance: Share = 0.1
    """Expected share of pairs of which only one answer is right: it decides how many pairs are needed."""
    bleu_spread: Annotated[float, Meta(gt=0)] = 30.0
    """Expected standard deviation of a pair's difference in BLEU; two people who write apart differ by 30."""
    tries: Annotated[int, Meta(ge=1)] = 1
    """How many model files may be judged on the same pairs; alpha is divided among them."""
    resamples: Annotated[int, Meta(ge=100)] = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.slice_by and not self.slices:
            what = "needs `slices`: the names of those that are judged; a prompt of any other is never served"
            raise ConfigError(what, field="gate.slice_by")

    @property
    def level(self) -> float:
        """The level of one try."""
        return self.alpha / self.tries

    @property
    def tests(self) -> list[Test]:
        """Slice and metric of each test."""
        metrics: tuple[Metric, ...] = ("right", "bleu") if self.bleu_margin else ("right",)
        return [(name, metric) for name in self.slices or (ALL,) for metric in metrics]

    def needed(self) -> int:
        """Pairs that each slice needs."""
        chances: list[Callable[[float, float], float]] = [
            lambda num, alpha: paired.share_chance(num, self.margin, self.discordance, alpha)
        ]
        if self.bleu_margin:
            chances.append(lambda num, alpha: paired.score_chance(num, self.bleu_margin, self.bleu_spread, alpha))
        num_tests = len(self.tests)
        return max(
            paired.pairs_needed(each, alpha=self.level, power=self.power, num_tests=num_tests) for each in chances
        )


class Recipe(Struct, frozen=True):
    """The part of a recipe that matters here; what else stands in it is its other readers' business."""

    gate: GatePlan = GatePlan()


class Pair(Struct, frozen=True):
    """One prompt with both answers."""

    id: str
    prompt: str
    student: str
    teacher: str
    slice: str = ""
    references: tuple[str, ...] = ()


def pairs_of(rows: Iterable[Mapping[str, Any]], *, file: str = "") -> list[Pair]:
    """Pairs from rows. Raises DistillError with the row's number where one is none, or an id comes twice."""
    found, ids = [], set()
    for number, row in enumerate(rows, 1):
        try:
            pair = msgspec.convert({**row, "id": str(row.get("id", number))}, Pair)
        except msgspec.ValidationError as error:
            what = f"is no pair: {error}; write id, prompt, student, teacher, and slice where the plan has slices"
            raise DistillError(what, file=file, line=number) from error
        if pair.id in ids:
            raise DistillError(f"the id {pair.id!r} comes twice", file=file, line=number)
        ids.add(pair.id)
        found.append(pair)
    return found


def plan_sha256(plan: GatePlan) -> str:
    """The plan's name: a changed plan has another one."""
    return sha256(msgspec.json.encode(plan, order="deterministic")).hexdigest()


def pairs_sha256(pairs: Sequence[Pair]) -> str:
    """The name of prompts and what answers are compared with, whatever the student said."""
    told = sorted((pair.id, pair.slice, pair.prompt, pair.teacher, pair.references) for pair in pairs)
    return sha256(msgspec.json.encode(told)).hexdigest()


def judge(
    plan: GatePlan, pairs: Sequence[Pair], verify: Verify | None = None, *, model: str = "", tries: int = 1
) -> Report:
    """The verdict. `verify`: by default the one that the plan names; `model`: the file judged, by its SHA-256.

    Raises DistillError where a pair belongs to no slice of the plan, or has no references for BLEU.
    """
    right = rightness(plan, verify)
    by_slice, num_repeated = sliced(plan, pairs)
    needed = plan.needed()
    looked_at = ready(plan, by_slice, needed)
    tested = [
        tested_slice(plan, test, by_slice[test[0]], needed, right if test[0] in looked_at else None)
        for test in plan.tests
    ]
    adjusted = paired.holm([each.p for each in tested])
    findings = [concluded(each, p, plan) for each, p in zip(tested, adjusted, strict=True)]
    decision, reason = decided(findings, apart=bool(plan.slice_by))
    return Report(
        decision,
        reason,
        findings,
        msgspec.json.decode(msgspec.json.encode(plan)),
        plan_sha256(plan),
        pairs_sha256(pairs),
        model,
        datetime.now(UTC).isoformat(timespec="seconds"),
        num_repeated,
        tries,
        sum(not answered(pair) for each in by_slice.values() for pair in each),
    )


Right = Callable[[Pair], tuple[bool, bool]]
"""Whether the student's, and the teacher's answer is right."""


def rightness(plan: GatePlan, verify: Verify | None) -> Right:
    """How pairs are judged: a teacher that gave no answer is wrong. Raises ConfigError for an unknown verifier."""
    if verify is None and plan.verify == SAME:
        return lambda pair: (answered(pair) and normal(pair.student) == normal(pair.teacher), answered(pair))
    check = verify or verifier(plan.verify, field="gate.verify")
    return lambda pair: (
        not check(pair.prompt, pair.student),
        answered(pair) and not check(pair.prompt, pair.teacher),
    )


def answered(pair: Pair) -> bool:
    """Whether the teacher gave an answer."""
    return bool(pair.teacher.strip())


def sliced(plan: GatePlan, pairs: Iterable[Pair]) -> tuple[dict[str, list[Pair]], int]:
    """Pairs by slice, each prompt once; and how many were left out. Raises DistillError for a slice unknown."""
    found: dict[str, list[Pair]] = {name: [] for name in plan.slices or (ALL,)}
    seen: set[tuple[str, str]] = set()
    num_repeated = 0
    slice_of = slicer(plan.slice_by, field="gate.slice_by") if plan.slice_by else None
    for pair in pairs:
        name = ALL if not plan.slices else pair.slice if slice_of is None else slice_of(pair.prompt)
        if name not in found:
            raise DistillError(f"pair {pair.id!r}: the plan has no slice {name!r}, only {', '.join(found)}")
        if (name, pair.prompt) in seen:
            num_repeated += 1
            continue
        seen.add((name, pair.prompt))
        found[name].append(pair)
    return found, num_repeated


def ready(plan: GatePlan, by_slice: Mapping[str, Sequence[Pair]], needed: int) -> frozenset[str]:
    """The slices to look at: those with enough pairs; where all must pass, none before all have.

    Whoever looked at some could choose by them how many pairs to add for the others.
    """
    enough = frozenset(name for name, pairs in by_slice.items() if len(pairs) >= needed)
    return enough if plan.slice_by or len(enough) == len(by_slice) else frozenset()


def tested_slice(plan: GatePlan, test: Test, pairs: Sequence[Pair], needed: int, right: Right | None) -> Finding:
    """One test, its p-value still by itself; without `right` no answer is looked at."""
    name, metric = test
    margin = plan.margin if metric == "right" else plan.bleu_margin
    finding = Finding(name, metric, "cannot tell", "", len(pairs), needed, margin)
    if right is None:
        there = f"only {len(pairs)} pairs" if pairs else "no pairs"
        lacking = f"{there}: it needs {needed}"
        waiting = f"{len(pairs)} pairs, enough: it is looked at once every slice has as many"
        return msgspec.structs.replace(finding, reason=waiting if len(pairs) >= needed else lacking)
    compared = by_share(plan, pairs, right) if metric == "right" else by_bleu(plan, pairs)
    first, second, low, high, p = compared
    return msgspec.structs.replace(finding, found="not shown", student=first, teacher=second, low=low, high=high, p=p)


Compared = tuple[float, float, float, float, float]
"""Student, teacher, bounds of their difference, p-value."""


def by_share(plan: GatePlan, pairs: Sequence[Pair], right: Right) -> Compared:
    """Shares of right answers."""
    told = [right(pair) for pair in pairs]
    student, teacher = sum(one for one, _ in told), sum(other for _, other in told)
    gains = sum(one and not other for one, other in told)
    losses = sum(other and not one for one, other in told)
    low, high = paired.interval(gains, losses, len(told), plan.level)
    p = float(paired.p_value(gains, losses, len(told), plan.margin))
    return student / len(told), teacher / len(told), low, high, p


def by_bleu(plan: GatePlan, pairs: Sequence[Pair]) -> Compared:
    """BLEU against the pairs' references. Raises DistillError where a pair has none."""
    check_references(pairs)
    references = [pair.references for pair in pairs]
    count = partial(text.counts, references=references)
    student = np.array(count([pair.student for pair in pairs]), dtype=np.float64)
    teacher = np.array(count([pair.teacher for pair in pairs]), dtype=np.float64)
    found = resample.compare(
        student, teacher, margin=plan.bleu_margin, alpha=plan.level, resamples=plan.resamples, seed=plan.seed
    )
    return found.first, found.second, found.low, found.high, found.p


def check_references(pairs: Iterable[Pair]) -> None:
    """Raise DistillError where BLEU has nothing to compare with."""
    for pair in pairs:
        if not pair.references:
            raise DistillError(f"pair {pair.id!r} has no references, and the plan has a bleu_margin; set it to 0")


def concluded(finding: Finding, p_holm: float, plan: GatePlan) -> Finding:
    """The finding with its verdict and the reason for it."""
    if finding.found == "cannot tell":
        return finding
    unit, scale = ("", 1.0) if finding.metric == "bleu" else (" %", 100.0)
    student, teacher, low, high, margin = (
        f"{scale * each:.2f}" for each in (finding.student, finding.teacher, finding.low, finding.high, finding.margin)
    )
    about = f"{student}{unit} against {teacher}{unit}, a difference of {low} to {high}, margin {margin}"
    if p_holm <= plan.level:
        return msgspec.structs.replace(
            finding, p_holm=p_holm, found="non-inferior", reason=f"{about}: p = {p_holm:.2g}"
        )
    if finding.high < -finding.margin:
        reason = f"{about}: worse by more than the margin"
        return msgspec.structs.replace(finding, p_holm=p_holm, found="inferior", reason=reason)
    reason = f"{about}: p = {p_holm:.2g}, above {plan.level:.2g}"
    return msgspec.structs.replace(finding, p_holm=p_holm, reason=reason)


def decided(findings: Sequence[Finding], *, apart: bool) -> tuple[Decision, str]:
    """What follows from all findings, and why. `apart`: slices that pass may serve without the others."""
    others = "; ".join([*named(findings, "inferior", "not shown"), *named(findings, "cannot tell")])
    passed = passing(findings)
    if not others:
        num = f"{len(findings)} tests" if len(findings) > 1 else "the test"
        return "promote", f"shown by {num}: if it is worse at all, then by less than the margin"
    if apart and passed:
        return "promote", f"for {', '.join(passed)}; not for {others}"
    failed = any(each.found in {"inferior", "not shown"} for each in findings)
    return "refuse" if failed else "cannot tell", others


def named(findings: Iterable[Finding], *which: str) -> Iterator[str]:
    """A line for each finding of some kinds."""
    for each in findings:
        if each.found in which:
            yield f"{each.slice}, {each.metric}: {each.found}, {each.reason}"
