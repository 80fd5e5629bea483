"""The rule by which a search finds its winner: stated before anything is scored, and kept whatever comes.

The gate split is read once, in an order that is fixed before: from the candidate nearest to the parent to the smallest.
The first that fails ends it, the last that passed is the winner. Each is tested at the full level, and still the chance
that a file wins which is worse by more than the margin is at most alpha (fixed-sequence testing, Maurer, Hothorn and
Lehmacher 1995): the first bad one in the order must pass by chance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from statistics import NormalDist
from typing import Literal

import msgspec
from msgspec import Struct

from stepwell.errors import ConfigError
from stepwell.quantize.frontier import Difference, Measure, Point, Target, divergence, unbeaten

MARGIN = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(bleu)?\s*", re.IGNORECASE)
RIGHT_MARGIN = 0.01
"""Beside BLEU, where facts can be checked: one answer in a hundred more may be wrong."""
NORMAL = NormalDist()
MOST_GATED = 5
"""Candidates that the gate reads, at most."""
RULE = (
    "Candidates are those that were asked all search rows, are not shown there to be worse by more than the margin, "
    "and are beaten by no other one in KL and target both. Of them the gate split tests first the one nearest to the "
    "parent, then smaller and smaller ones by the target, as promises the most: what each spares, by how likely it "
    "passes, as all candidates' scores and KL say together. The first that fails ends it, the last that passed "
    "wins. To pass: the lower bound (one-sided, {level:.0%}) of score minus parent's score, paired by prompt, lies "
    "above minus the margin, in every metric. If none passes, the model stays as it is."
)
Status = Literal["found", "none", "incomplete"]
"""incomplete: the budget ended before the gate; the same command goes on."""


class Margins(Struct, frozen=True):
    """What a file's score may be lower by, in each metric that is tested; 0: it is not."""

    bleu: float = 0.0
    """Points of BLEU."""
    right: float = 0.0
    """Share of right answers."""

    def __str__(self) -> str:
        told = [f"{self.bleu:g} BLEU"] if self.bleu else []
        return " and ".join([*told, *([f"{100 * self.right:g} % of answers"] if self.right else [])])


def margins(told: str, *, bleu: bool, facts: bool) -> Margins:
    """Margins as somebody writes them: `0.5bleu` for a task that is scored by BLEU, a share such as `0.01` for others.

    `facts`: beside BLEU the facts of answers can be checked. Raises ConfigError.
    """
    found = MARGIN.fullmatch(told)
    value = float(found[1]) if found else 0.0
    if found is None or value <= 0:
        raise ConfigError(f"is {told!r}: write a share such as 0.01, or points of BLEU such as 0.5bleu", field="margin")
    if bleu != bool(found[2]):
        right = "points of BLEU, such as 0.5bleu" if bleu else "a share of right answers, such as 0.01"
        raise ConfigError(f"is {told!r}, and this task is scored by {right}", field="margin")
    if value >= (100 if bleu else 1):
        raise ConfigError(f"is {told!r}: with that anything passes", field="margin")
    return Margins(value, RIGHT_MARGIN if facts else 0.0) if bleu else Margins(right=value)


class Plan(Struct, frozen=True, kw_only=True):
    """All that is fixed before the search: plan.json."""

    model: str
    model_sha256: str
    task: str
    scorer: str
    splits: dict[str, str]
    """SHA-256 of calibration, search and gate rows."""
    num_rows: dict[str, int]
    margins: Margins
    alpha: float
    target: Target
    at_most: float
    """Share of what the parent's 16-bit file takes: where nothing that passes is below, it is trained for. 0: none."""
    seed: int
    resamples: int
    max_tokens: int
    cpu_hour_usd: float
    stepwell: str
    rule: str

    @property
    def sha256(self) -> str:
        """The plan's name."""
        return sha256(msgspec.json.encode(self)).hexdigest()


class Found(Struct, frozen=True, kw_only=True):
    """What a search came to: found.json."""

    status: Status
    why: str
    parent: Point
    """Its 16-bit file."""
    winner: Point | None
    """Where the status is incomplete: the best so far, which the gate has not seen."""
    points: tuple[Point, ...]
    """All that were looked at, by size; the winner among them."""
    tested: tuple[str, ...]
    """Those that the gate read, in its order."""
    left_out: tuple[str, ...]
    """What the budget did not allow."""
    spent_s: float
    """Of the budget, by the last run."""


def differing(one: Plan, other: Plan) -> list[str]:
    """The fields in which two plans differ."""
    return [name for name in Plan.__struct_fields__ if getattr(one, name) != getattr(other, name)]


def order(
    points: Iterable[Point],
    measure: Measure,
    most: int = MOST_GATED,
    *,
    alpha: float,
    num_gated: int,
    num_searched: int = 0,
) -> list[Point]:
    """In what order the gate tests: the nearest to the parent of those that may pass, then smaller ones.

    Every test may fail by chance, and ends it: of all orders this one is expected to spare the most. What another one
    beats in KL and target both is no step: it spares less, and fails sooner. `num_gated`: rows of the gate split;
    `num_searched`: search rows of which a step must have been asked all.
    """
    scored = [each for each in points if each.searched]
    hopeful = [each for each in scored if not each.hopeless and measure(each) < float("inf")]
    steps = [each for each in unbeaten(hopeful, measure, divergence)[::-1] if each.num_searched >= num_searched]
    if not steps or most < 1:
        return []
    chance = likely(scored, alpha, num_gated)
    return best_from(steps, [chance[each.name] for each in steps], measure, most)


def best_from(points: Sequence[Point], chances: Sequence[float], measure: Measure, most: int) -> list[Point]:
    """The first, and those of the smaller ones behind it that together promise the most, at most so many."""
    num = len(points)
    worth = [[0.0] * num for _ in range(most)]
    after: list[list[int]] = [[num] * num for _ in range(most)]
    for left in range(1, most):
        for here in reversed(range(num)):
            for there in range(here + 1, num):
                spared = measure(points[here]) - measure(points[there])
                hope = chances[there] * (spared + worth[left - 1][there])
                if hope > worth[left][here]:
                    worth[left][here], after[left][here] = hope, there
    found, here = [points[0]], 0
    for left in reversed(range(most)):
        here = after[left][here]
        if here == num:
            break
        found.append(points[here])
    return found


def likely(points: Sequence[Point], alpha: float, num_gated: int) -> dict[str, float]:
    """How likely each passes on the gate split: whether its own score was lucky on the search split is not known.

    What is expected of it is what scores fall by with KL, over all points; what chance adds, the width of its bounds.
    """
    z, found = NORMAL.inv_cdf(1 - alpha), {each.name: 1.0 for each in points}
    for told in zip(*(each.searched for each in points), strict=True):
        errors = [max((each.high - each.low) / 2 / z, 1e-9) for each in told]
        slope = fall(points, told, errors)
        for point, each, error in zip(points, told, errors, strict=True):
            room = (each.margin - slope * (point.kl or 0.0)) / error
            found[point.name] *= NORMAL.cdf(room * (num_gated / point.num_searched) ** 0.5 - z)
    return found


def fall(points: Sequence[Point], told: Sequence[Difference], errors: Sequence[float]) -> float:
    """What a score falls by for a nat of KL: weighted least squares through the parent, never less than nothing."""
    gaps = zip(points, told, errors, strict=True)
    both = [(point.kl or 0.0, each.score - each.parent, 1 / error**2) for point, each, error in gaps]
    square = sum(weight * kl * kl for kl, _, weight in both)
    return max(0.0, -sum(weight * kl * gap for kl, gap, weight in both) / square) if square else 0.0


Test = Callable[[Point], tuple[Difference, ...]]
"""Scores a candidate on the gate split."""


def gated(
    ordered: Sequence[Point], test: Callable[[Point], tuple[Difference, ...]]
) -> tuple[list[Point], Point | None]:
    """Test in order until one fails: all that were tested, and the last that passed."""
    tested: list[Point] = []
    for each in ordered:
        now = msgspec.structs.replace(each, gated=test(each))
        tested.append(now)
        if not all(one.passes for one in now.gated):
            return tested, tested[-2] if len(tested) > 1 else None
    return tested, tested[-1] if tested else None
