"""How often the gate lets a student pass that is worse by the whole margin, and one that is as good as its teacher.

Simulated promotions: pairs drawn from worlds whose truth is known, judged by the functions that judge real ones. Every
figure is the worst over discordances, numbers of slices and metrics. Run alone: `python -m bench.distill.gate`.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from stepwell.quality import paired, resample
from stepwell.quality.compare import GatePlan, Pair, judge
from stepwell.quality.sequential import STAKES, Counts, is_worse
from stepwell.quality.text import counts

NUM_PROMOTIONS = 50_000
"""Of each of the worlds: with 10,000 the worst of so many would be worse by chance alone."""
NUM_BLEU, NUM_BLEU_QUICK = 10_000, 1_000
NUM_STREAMS, NUM_LOOKS = 10_000, 5_000
NUM_STREAMS_QUICK, NUM_LOOKS_QUICK = 4_000, 2_000
NUM_CHECKED = 20
"""Simulated promotions that are judged pair by pair as well: both must say the same."""
PLANS = tuple(
    GatePlan(verify="values", margin=margin, discordance=discordance, slices=slices)
    for (margin, discordance), slices in itertools.product(
        ((0.02, 0.03), (0.02, 0.1), (0.02, 0.3), (0.05, 0.06), (0.05, 0.2)), ((), ("a", "b", "c"), tuple("abcdefgh"))
    )
)
BLEU_PLAN = GatePlan(verify="values", margin=0.5, bleu_margin=6.0, bleu_spread=30.0, resamples=600)
Draw = NDArray[np.int64]
"""Gains, losses and the rest, shape (promotions, slices, 3)."""


def measure(*, quick: bool) -> dict[str, float]:
    """The gate's keys."""
    num = NUM_PROMOTIONS
    chance = np.random.default_rng(20261126)
    false = [at_the_margin(plan, num, chance) for plan in PLANS]
    any_slice = [all_at_the_margin(plan, num, chance) for plan in PLANS]
    tried = [tried_again(plan, num, chance) for plan in PLANS[:1]]
    power = [at_equality(plan, num, chance) for plan in PLANS]
    for plan, one, other, third in zip(PLANS, false, any_slice, power, strict=True):
        about = f"margin {plan.margin:.2f}, discordance {plan.discordance:.2f}, {len(plan.slices) or 1} slices"
        passes = f"passed {one:.4f} at the margin ({other:.4f} some slice), {third:.4f} at equality"
        print(f"{about}: {plan.needed():,} pairs each; {passes}")
    told = {
        "gate_false_promote": max([*false, *any_slice, *tried]),
        "gate_power": min(power),
        **stopped(quick=quick, chance=chance),
    }
    if os.environ.get("STEPWELL_DATA"):
        told |= by_bleu(NUM_BLEU_QUICK if quick else NUM_BLEU)
    if os.environ.get("STEPWELL_DATA") and not quick:  # of fewer, the worst would be so by chance
        told["gate_false_promote"] = max(told["gate_false_promote"], told["gate_false_promote_bleu"])
        told["gate_power"] = min(told["gate_power"], told["gate_power_bleu"])
    return told


# --- shares of right answers


def drawn(plan: GatePlan, differences: Sequence[float], num: int, chance: np.random.Generator) -> Draw:
    """Counts of pairs of simulated promotions; the true difference of each slice."""
    slices = []
    for difference in differences:
        only_one = max(plan.discordance, abs(difference))
        shares = [(only_one + difference) / 2, (only_one - difference) / 2, 1 - only_one]
        slices.append(chance.multinomial(plan.needed(), shares, size=num))
    return np.stack(slices, axis=1)


def passed(plan: GatePlan, told: Draw, level: float) -> NDArray[np.bool_]:
    """Which slices pass, by the gate's own test and Holm's procedure, shape (promotions, slices)."""
    z = paired.score(told[..., 0], told[..., 1], plan.needed(), -plan.margin)
    order = np.argsort(-z, axis=1)
    levels = [paired.NORMAL.inv_cdf(1 - level / left) for left in range(z.shape[1], 0, -1)]
    good = np.logical_and.accumulate(np.take_along_axis(z, order, axis=1) >= levels, axis=1)
    found = np.zeros_like(good)
    np.put_along_axis(found, order, good, axis=1)
    return found


def at_the_margin(plan: GatePlan, num: int, chance: np.random.Generator) -> float:
    """Share of promotions where one slice is worse by the margin and all others are better than the teacher."""
    others = [min(0.02, plan.discordance)] * (len(plan.tests) - 1)
    told = drawn(plan, [-plan.margin, *others], num, chance)
    found = passed(plan, told, plan.level).all(axis=1)
    check(plan, told, found)
    return float(found.mean())


def all_at_the_margin(plan: GatePlan, num: int, chance: np.random.Generator) -> float:
    """Share of promotions where at least one slice passes though each is worse by the margin."""
    told = drawn(plan, [-plan.margin] * len(plan.tests), num, chance)
    return float(passed(plan, told, plan.level).any(axis=1).mean())


def tried_again(plan: GatePlan, num: int, chance: np.random.Generator, tries: int = 3) -> float:
    """Share of promotions where one of several files passes, each worse by the margin, on a plan that allows them."""
    plan = msgspec.structs.replace(plan, tries=tries)
    told = [passed(plan, drawn(plan, [-plan.margin], num, chance), plan.level)[:, 0] for _ in range(tries)]
    return float(np.any(told, axis=0).mean())


def at_equality(plan: GatePlan, num: int, chance: np.random.Generator) -> float:
    """Share of promotions of students as good as their teacher, with as many pairs as planned."""
    told = drawn(plan, [0.0] * len(plan.tests), num, chance)
    found = passed(plan, told, plan.level).all(axis=1)
    check(plan, told, found)
    return float(found.mean())


def check(plan: GatePlan, told: Draw, found: NDArray[np.bool_]) -> None:
    """Judge some of the promotions pair by pair; raise where that says anything else."""
    for row in range(NUM_CHECKED if len(plan.tests) == 1 else 1):
        pairs = [pair for (name, _), each in zip(plan.tests, told[row], strict=True) for pair in pairs_of(name, each)]
        if (judge(plan, pairs).decision == "promote") != bool(found[row]):
            raise AssertionError(f"judged pair by pair, promotion {row} of {plan} ends differently")


def pairs_of(name: str, told: NDArray[np.int64]) -> list[Pair]:
    """Pairs with these counts."""
    answers = [("P", "-"), ("-", "P"), ("P", "P")]
    texts = [each for each, num in zip(answers, told, strict=True) for _ in range(num)]
    return [
        Pair(f"{name}{place}", f"x[P] {place}", student, teacher, name)
        for place, (student, teacher) in enumerate(texts)
    ]


# --- BLEU


def by_bleu(num: int) -> dict[str, float]:
    """Samples of a population of texts whose difference in BLEU is known: the margin is set to it, or far off."""
    worse, same, better = population()
    plan = BLEU_PLAN
    size, chance = plan.needed(), np.random.default_rng(7)
    truth = float(resample.bleu(worse.sum(axis=0)) - resample.bleu(better.sum(axis=0)))
    equal = float(resample.bleu(same.sum(axis=0)) - resample.bleu(better.sum(axis=0)))
    false, power, spreads = 0, 0, []
    for seed in range(num):
        rows = chance.integers(0, len(better), size)
        told = resample.compare(
            worse[rows], better[rows], margin=-truth, alpha=plan.level, resamples=plan.resamples, seed=seed
        )
        false += told.p <= plan.level
        told = resample.compare(
            same[rows],
            better[rows],
            margin=plan.bleu_margin - equal,
            alpha=plan.level,
            resamples=plan.resamples,
            seed=seed,
        )
        power += told.p <= plan.level
        spreads.append((told.high - told.low) / 2 / 1.645 * size**0.5)
    print(f"BLEU: {size:,} pairs, differences {truth:.2f} and {equal:.2f}, spread of a pair {np.mean(spreads):.1f}")
    return {
        "gate_false_promote_bleu": false / num,
        "gate_power_bleu": power / num,
        "gate_bleu_spread": float(np.mean(spreads)),
    }


def population() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Counts of human texts of E2E: with words left out, and two writers of one prompt, all against the others'."""
    from recipes.writer import data  # noqa: PLC0415 - needs STEPWELL_DATA

    many = [texts for texts in data.read("train").values() if len(texts) >= 5][:3000]
    chance = random.Random(1)
    references = [texts[2:] for texts in many]
    one, other = [texts[0] for texts in many], [texts[1] for texts in many]
    cut = [" ".join(text.split()[:-2]) if chance.random() < 0.4 else text for text in one]
    worse, same, better = (np.array(counts(each, references), dtype=np.float64) for each in (cut, other, one))
    return worse, same, better


# --- the sequential test


def stopped(*, quick: bool, chance: np.random.Generator) -> dict[str, float]:
    """How often a specialist at the margin is rolled back though one looks after every audit; how soon a bad one is."""
    streams, looks = (NUM_STREAMS_QUICK, NUM_LOOKS_QUICK) if quick else (NUM_STREAMS, NUM_LOOKS)
    margin, alpha = 0.02, 0.05
    world = partial(when_stopped, margin=margin, alpha=alpha, looks=looks, chance=chance)
    false = [world(-margin, each, streams=streams) for each in (0.02, 0.1, 0.3)]
    told = {"rollback_false": max(float(np.isfinite(each).mean()) for each in false), "rollback_looks": float(looks)}
    for times in (3, 5, 10):
        when = world(-margin * times, 0.1 + margin * times, streams=streams // 4)
        told[f"rollback_audits_at_{times}_margins"] = float(np.median(when))
    return told


def when_stopped(
    difference: float,
    only_one: float,
    *,
    margin: float,
    alpha: float,
    streams: int,
    looks: int,
    chance: np.random.Generator,
) -> NDArray[np.float64]:
    """After which audit each stream is rolled back; infinity for never."""
    stakes = np.array(STAKES)
    factors = np.stack([1 - stakes * (pair + margin) for pair in (1.0, -1.0, 0.0)])
    shares = np.cumsum([(only_one + difference) / 2, (only_one - difference) / 2])
    capital = np.full((streams, len(stakes)), 1 / len(stakes))
    when, told = np.full(streams, np.inf), np.zeros((streams, 3), dtype=np.int64)
    for look in range(1, looks + 1):
        going = np.isinf(when)
        if not going.any():
            break
        pairs = np.searchsorted(shares, chance.random(streams), side="right")
        told[np.arange(streams), pairs] += going
        capital *= factors[pairs]
        crossed = going & (capital.sum(axis=1) >= 1 / alpha)
        when[crossed] = look
        capital[crossed] = 0.0
    for row in range(50):
        ended = Counts(*(int(each) for each in told[row]))
        if is_worse(ended, margin, alpha) != bool(np.isfinite(when[row])):
            raise AssertionError(f"the test itself says something else of {ended}")
    return when


if __name__ == "__main__":
    print(msgspec.json.encode(measure(quick="--quick" in sys.argv)).decode())
