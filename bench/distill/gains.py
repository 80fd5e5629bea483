"""What a teacher adds to the same data, the same student and the same number of steps.

Low: 1,000 human pairs, alone or with the teacher's texts of prompts recombined from them and its probabilities of
all; 300 steps, 1.2 million tokens. Full: all human texts, alone or likewise; `short` in as many steps, else in 1,000.
`sparse`: the teacher's probabilities as they are stored against all of its vocabulary online, same rows, 300 steps.
Settings were chosen on dev with a seed that is not reported; every run keeps its best weights by dev loss. Intervals
(95 %) over seeds and prompts.

    STEPWELL_DATA=... python -m bench.distill.gains [--quick]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from msgspec import Struct
from msgspec.structs import replace
from recipes.writer import data

from bench.distill import e2e, scores
from bench.distill.e2e import Set
from bench.distill.scores import Scores
from stepwell.distill.data import Example
from stepwell.distill.measure import mean_loss
from stepwell.distill.plan import Plan
from stepwell.distill.student import load

NUM_LOW, NUM_NEW_LOW, NUM_NEW = 1_000, 4_000, 12_000
SEEDS = (0, 1, 2)
PLAN = Plan(
    steps=300,
    optimizer="muon",
    rate=5e-3,
    loss="topk+rest",
    alpha=0.9,
    measure_every=50,
    save_every=100,
    metric="-loss",
)
LONG = 1_000
NUM_DEV = 400


class Arm(Struct, frozen=True):
    """One student: its scores, and what a step of it cost."""

    scores: Scores
    step_cpu_s: float


def measure(*, quick: bool = False) -> dict[str, Any]:
    """The figures; quick: one seed, half of the steps, a tenth of the rows, no long runs."""
    torch.set_num_threads(1)
    seeds = SEEDS[:1] if quick else SEEDS
    plan = replace(PLAN, steps=PLAN.steps // 2, warm_steps=30) if quick else PLAN
    arms: dict[str, list[Arm]] = {}
    for seed in seeds:
        found = of_seed(replace(plan, seed=seed), tenth=quick)
        if not quick:
            found |= of_seed_long(replace(plan, seed=seed, steps=LONG))
        for name, arm in found.items():
            arms.setdefault(name, []).append(arm)
    return told(arms)


def told(arms: dict[str, list[Arm]]) -> dict[str, Any]:
    """The figures of all arms."""
    full = gain(arms, "full, long") if "full, long, distilled" in arms else {}
    short = {key.replace("_full", "_full_short"): value for key, value in gain(arms, "full").items()}
    named = {key.replace("_full, long", "_full"): value for key, value in full.items()}
    return {**gain(arms, "low"), **short, **named, **sparse(arms), "gain_seeds": len(arms["full, distilled"])}


def of_seed(plan: Plan, *, tenth: bool = False) -> dict[str, Arm]:
    """All arms of one seed."""
    pairs = e2e.human()
    few = e2e.shuffled(pairs, NUM_LOW, plan.seed)
    low = e2e.taught(few, e2e.new_prompts([pair.mr for pair in few], NUM_NEW_LOW // (4 if tenth else 1), plan.seed))
    full = whole(tenth=tenth)
    alone = replace(plan, loss="ce")
    return {
        "low, data alone": arm(alone, Set(humans(low), low.folder), "low, data alone"),
        "low, distilled": arm(plan, low, "low, distilled"),
        "full, data alone": arm(alone, Set(humans(full), full.folder), "full, data alone"),
        "full, distilled": arm(plan, full, "full, distilled"),
        "full, all probabilities": arm(replace(plan, loss="fkl"), full, "full, all probabilities"),
        "full, same rows, texts alone": arm(alone, full, "full, same rows, texts alone"),
    }


def of_seed_long(plan: Plan) -> dict[str, Arm]:
    """All human texts, alone or with the teacher, in more steps."""
    full = whole()
    alone = replace(plan, loss="ce")
    return {
        "full, long, data alone": arm(alone, Set(humans(full), full.folder), "full, long, data alone"),
        "full, long, distilled": arm(plan, full, "full, long, distilled"),
    }


def whole(*, tenth: bool = False) -> Set:
    """All human texts, or a tenth of them, and what the teacher makes of them."""
    pairs, num = e2e.human(), NUM_NEW
    if tenth:
        pairs, num = e2e.shuffled(pairs, len(pairs) // 10, 0), NUM_NEW // 10
    return e2e.taught(pairs, e2e.new_prompts([pair.mr for pair in pairs], num, 0))


def humans(of: Set) -> list[Example]:
    """The rows that people wrote."""
    return [row for row in of.rows if row.id.startswith("human")]


def arm(plan: Plan, of: Set, name: str) -> Arm:
    """Train one student and score it."""
    teacher = load(e2e.TEACHER)
    dev = [Example(mr, text) for mr, texts in list(data.read("dev").items())[:NUM_DEV] for text in texts[:1]]
    means: dict[str, Any] = {"watch": e2e.bar(name, plan), "dev": lambda model: {"loss": mean_loss(model, dev)}}
    if plan.loss == "topk+rest":
        means["sparse"] = e2e.sparse(of, teacher)
    elif plan.loss == "fkl":
        means["teacher"] = teacher
    with tempfile.TemporaryDirectory() as out:
        model, done = e2e.student(plan, of.rows, Path(out) / "run", **means)
    told = e2e.measured(model)
    errors = f"slot errors {told.ser:.2%} ({told.ser_apart:.2%} apart)"
    print(f"seed {plan.seed}, {name}: BLEU {told.bleu:.2f}, {errors}, {done.cpu_s:.0f} CPU-s", flush=True)
    return Arm(told, done.cpu_s / done.steps)


def gain(arms: dict[str, list[Arm]], name: str) -> dict[str, float]:
    """How many points of BLEU the teacher adds."""
    made, alone = ([each.scores for each in arms[f"{name}, {what}"]] for what in ("distilled", "data alone"))
    found = scores.gaps(made, alone)
    low, high = np.quantile(found, [0.025, 0.975])
    point = np.mean([each.bleu for each in made]) - np.mean([each.bleu for each in alone])
    key = f"distill_gain_{name}"
    return {key: round(float(point), 2), f"{key}_from": round(float(low), 2), f"{key}_to": round(float(high), 2)}


def sparse(arms: dict[str, list[Arm]]) -> dict[str, float]:
    """What storing a part of the teacher's probabilities loses, and costs."""
    kept, whole = arms["full, distilled"], arms["full, all probabilities"]
    found = scores.gaps([each.scores for each in kept], [each.scores for each in whole])
    low, high = np.quantile(found, [0.025, 0.975])
    point = np.mean([each.scores.bleu for each in kept]) - np.mean([each.scores.bleu for each in whole])
    sft = arms["full, same rows, texts alone"]
    return {
        "sparse_vs_full_bleu": round(float(point), 2),
        "sparse_bleu_loss": round(max(0.0, -float(point)), 2),
        "sparse_vs_full_from": round(float(low), 2),
        "sparse_vs_full_to": round(float(high), 2),
        "sparse_time_vs_sft": round(median(a.step_cpu_s for a in kept) / median(a.step_cpu_s for a in sft), 3),
        "online_time_vs_sft": round(median(a.step_cpu_s for a in whole) / median(a.step_cpu_s for a in sft), 3),
    }


if __name__ == "__main__":
    for key, value in measure(quick="--quick" in sys.argv).items():
        print(f"{key}: {value}")
