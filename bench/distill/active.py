"""How many teacher calls selection by value saves against random requests, for the same quality.

Stated before any run on the reporting set:

- Traffic: 10,000 requests over the training texts of an intent set. Intents are ranked by chance (another order for
  each seed); the share of the intent at rank r is in proportion to 1 / r (Zipf), its texts are equally likely.
- The teacher is the set's labels; a label costs one call, the same text a second time costs none.
- The student is the same everywhere: `linear.Student` on MiniLM's vectors, which also learns from unlabelled traffic.
- Random: requests are asked about as they come (a text once).
- By value: rounds that grow by half. Value = frequency x expected failure, where the expected failure is the last
  student's confidence, calibrated on the answers seen so far, and an answer counts for what lies near it
  (`distill/value.py`); 15 % of each round are drawn by chance, with known probabilities, and are counted as calls.
  No label that was not paid for is looked at: neither for selection nor for calibration.
- Full-label quality: the student with every distinct text of the traffic labelled.
- Quality is measured on the test split, traffic-weighted (each intent counts by its share of traffic; the headline) and
  balanced (each intent counts the same). Both curves are reported.
- Calls to reach 95 % of full-label quality: where the line between two measured points crosses it, first.
- The ratio is that of the mean numbers of calls over seeds; its 95 % interval by bootstrap over seeds (pairs).
- A seed whose random arm does not reach the goal counts with the last number that was asked (a bound in its favour).
- Settings were chosen on CLINC150 (seeds 100 and up); the figures are of Banking77 (seeds 0 and up).

    STEPWELL_DATA=... python -m bench.distill.active [banking|clinc] [seeds]
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bench.cache import texts
from bench.distill.linear import Floats, Ints, Student, neighbours
from stepwell.distill.value import choose, covering, estimate, expected_failure, narrow

NUM_SEEDS, NUM_QUICK_SEEDS = 5, 2
NUM_REQUESTS = 10_000
FIRST, GROWTH = 40, 1.5
RANDOM_SHARE = 0.15
GOAL = 0.95
QUALITIES = ("traffic", "balanced")
MOST_CALLS = 0.6
"""Share of all texts at which an arm that has not reached a goal gives up."""
CLINC_SEED = 100


class Set(Struct, frozen=True, eq=False):
    """Texts to learn from and to measure on."""

    vectors: Floats
    intents: Ints
    test_vectors: Floats
    test_intents: Ints


class Traffic(Struct, frozen=True, eq=False):
    """Distinct texts that were asked, how often, in which order they first came; and the shares of intents."""

    vectors: Floats
    intents: Ints
    frequency: NDArray[np.float64]
    order: Ints
    shares: NDArray[np.float64]


class Point(Struct, frozen=True):
    """The quality after so many calls."""

    calls: int
    traffic: float
    balanced: float


def loaded(name: str) -> Set:
    """A set's vectors, split as its makers split it."""
    rows, vectors = texts.SETS[name](), texts.vectors(name)
    if name == "banking":
        with (texts.folder() / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
            end = start = sum(1 for _ in csv.DictReader(file))
        stop = len(rows)
    else:
        told = json.loads((texts.folder() / "clinc150" / "data_full.json").read_text())
        end, start = len(told["train"]), len(told["train"]) + len(told["val"])
        stop = start + len(told["test"])
    names = {intent: at for at, intent in enumerate(sorted({intent for _, intent in rows[:end]}))}
    train, test = (np.array([names[intent] for _, intent in part]) for part in (rows[:end], rows[start:stop]))
    return Set(vectors[:end], train, vectors[start:stop], test)


def traffic_of(given: Set, seed: int) -> Traffic:
    """Requests of one seed."""
    rng = np.random.default_rng(seed)
    num = int(given.intents.max()) + 1
    shares = 1.0 / (1 + rng.permutation(num))
    shares /= shares.sum()
    by_intent = [np.flatnonzero(given.intents == intent) for intent in range(num)]
    asked = np.array([rng.choice(by_intent[intent]) for intent in rng.choice(num, NUM_REQUESTS, p=shares)])
    distinct, first, frequency = np.unique(asked, return_index=True, return_counts=True)
    order = np.argsort(first)
    return Traffic(given.vectors[distinct], given.intents[distinct], frequency.astype(float), order, shares)


def quality(student: Student, given: Set, shares: NDArray[np.float64]) -> tuple[float, float]:
    """Traffic-weighted and balanced accuracy on the test split."""
    right = student.answers(given.test_vectors) == given.test_intents
    each = np.array([right[given.test_intents == intent].mean() for intent in range(len(shares))])
    return float(each @ shares), float(each.mean())


class Arm:
    """One way of choosing, on one traffic: rounds that grow, a student after each."""

    def __init__(self, given: Set, traffic: Traffic, full: tuple[float, float]) -> None:
        self.given, self.traffic, self.full = given, traffic, full
        self.graph = neighbours(traffic.vectors)
        self.points: list[Point] = []

    def play(self, more: Callable[[Ints, Student | None, int], Ints]) -> list[Point]:
        """Measure after each round until both goals are reached, or are out of reach."""
        taught, student, size = np.empty(0, np.int64), None, FIRST
        while not self.over(len(taught)):
            taught = np.concatenate([taught, more(taught, student, size - len(taught))])
            student = Student(self.traffic.vectors, self.graph, taught, self.traffic.intents[taught])
            self.points.append(Point(len(taught), *quality(student, self.given, self.traffic.shares)))
            size = round(size * GROWTH)
        return self.points

    def over(self, num: int) -> bool:
        """Whether nothing is left to find out."""
        reached = [
            max((getattr(point, name) for point in self.points), default=0) >= GOAL * full
            for name, full in zip(QUALITIES, self.full, strict=True)
        ]
        return num >= MOST_CALLS * len(self.traffic.vectors) or all(reached)


def in_order(traffic: Traffic) -> Callable[[Ints, Student | None, int], Ints]:
    """Requests as they come."""
    return lambda taught, _student, num: traffic.order[len(taught) : len(taught) + num]


class ByValue:
    """Rounds chosen by value; what the student got wrong before it learned it says how sure it may be."""

    def __init__(self, traffic: Traffic, seed: int) -> None:
        self.traffic, self.seed = traffic, seed
        self.seen: list[float] = []
        self.failed: list[float] = []
        self.checks: list[tuple[float, float, float]] = []

    def __call__(self, taught: Ints, student: Student | None, num: int) -> Ints:
        """The next round."""
        traffic = self.traffic
        if student is None:
            return covering(traffic.vectors, traffic.frequency, num)
        likely = student.chances(traffic.vectors)
        sure, said = likely.max(axis=1).astype(float), student.known[likely.argmax(axis=1)]
        failure = expected_failure(sure, np.array(self.seen), np.array(self.failed))
        failure[taught] = 0.0
        value = traffic.frequency * failure
        chance = narrow(traffic.frequency, failure)
        share, seed = RANDOM_SHARE, self.seed + len(taught)
        choice = choose(value, chance, num, random_share=share, seed=seed, vectors=traffic.vectors, taught=taught)
        wrong = (said != traffic.intents).astype(float)
        wrong[taught] = 0.0
        paid = wrong[choice.places]
        self.seen += sure[choice.places].tolist()
        self.failed += paid.tolist()
        total = traffic.frequency.sum()
        mean = float(traffic.frequency @ failure / total)
        asked, guess = traffic.frequency[choice.places], failure[choice.places]
        found = estimate(paid, asked, choice, total=total, guess=guess, guess_mean=mean)
        self.checks.append((found.mean, found.error, float(traffic.frequency @ wrong / total)))
        return choice.places


class Curves(Struct, frozen=True):
    """One seed: what each arm reached, and the goals."""

    random: list[Point]
    value: list[Point]
    full: tuple[float, float]
    checks: list[tuple[float, float, float]]
    """Share of traffic that fails, round by round: as estimated from the round's answers, its standard error, truth."""


def curves(given: Set, seed: int) -> Curves:
    """Both arms on the same traffic."""
    traffic = traffic_of(given, seed)
    everything = np.arange(len(traffic.vectors))
    arm = Arm(given, traffic, (1.0, 1.0))
    full = quality(Student(traffic.vectors, arm.graph, everything, traffic.intents), given, traffic.shares)
    by_value = ByValue(traffic, seed)
    random = Arm(given, traffic, full).play(in_order(traffic))
    return Curves(random, Arm(given, traffic, full).play(by_value), full, by_value.checks)


def calls_to(points: Sequence[Point], name: str, goal: float) -> float:
    """Calls at which a curve first reaches a goal; its last number of calls where it never does."""
    told = [(0.0, 0.0), *((float(point.calls), float(getattr(point, name))) for point in points)]
    for (before, low), (after, high) in pairwise(told):
        if high >= goal:
            return before + (after - before) * (goal - low) / (high - low)
    return told[-1][0]


def ratio(seeds: Sequence[Curves], name: str) -> tuple[float, float, float]:
    """Calls by value for each call by chance, and the 95 % interval."""
    at = QUALITIES.index(name)
    pairs = np.array(
        [[calls_to(arm, name, GOAL * each.full[at]) for arm in (each.value, each.random)] for each in seeds]
    )
    rng = np.random.default_rng(0)
    drawn = pairs[rng.integers(0, len(pairs), (2000, len(pairs)))].mean(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    value, random = pairs.mean(axis=0)
    return float(value / random), float(low), float(high)


def figures(name: str, seeds: Iterable[int]) -> dict[str, float]:
    """All keys of a set; the curves are printed."""
    given = loaded(name)
    played = []
    for seed in seeds:
        played.append(curves(given, seed))
        show(seed, played[-1])
    told: dict[str, float] = {}
    for quality_name, key in (("traffic", "active_calls_ratio"), ("balanced", "active_calls_ratio_balanced")):
        told[key], told[f"{key}_low"], told[f"{key}_high"] = ratio(played, quality_name)
    at = QUALITIES.index("traffic")
    told["active_calls"] = float(np.mean([calls_to(each.value, "traffic", GOAL * each.full[at]) for each in played]))
    told["random_calls"] = float(np.mean([calls_to(each.random, "traffic", GOAL * each.full[at]) for each in played]))
    told["active_full_quality"] = float(np.mean([each.full[at] for each in played]))
    checks = np.array([check for each in played for check in each.checks])
    told["active_estimate_bias"] = float((checks[:, 0] - checks[:, 2]).mean())
    told["active_estimate_inside"] = float((np.abs(checks[:, 0] - checks[:, 2]) <= 1.96 * checks[:, 1]).mean())
    return told


def show(seed: int, each: Curves) -> None:
    """Both curves, as shares of full-label quality."""
    print(f"seed {seed}: full-label quality {each.full[0]:.3f} of traffic, {each.full[1]:.3f} balanced")
    for arm in ("random", "value"):
        told = " ".join(
            f"{point.calls}:{point.traffic / each.full[0]:.3f}/{point.balanced / each.full[1]:.3f}"
            for point in getattr(each, arm)
        )
        print(f"  {arm:<7} {told}", flush=True)


def measure(*, quick: bool) -> dict[str, float]:
    """The issue's keys, on Banking77."""
    return figures("banking", range(NUM_QUICK_SEEDS if quick else NUM_SEEDS))


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "banking"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else NUM_SEEDS
    begin = CLINC_SEED if chosen == "clinc" else 0
    print(json.dumps(figures(chosen, range(begin, begin + count))))
