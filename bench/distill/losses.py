"""Which loss when: the same student, rows and steps, and what each loss makes of them.

Rows: 1,000 human pairs and the teacher's texts of 4,000 prompts recombined from them. Every loss with its defaults;
nothing was tuned for any of them. Scores on E2E's test set; CPU time of a step beside cross-entropy's.

    STEPWELL_DATA=... python -m bench.distill.losses [--quick]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from msgspec.structs import replace

from bench.distill import e2e
from bench.distill.e2e import Set
from bench.distill.gains import NUM_LOW, NUM_NEW_LOW, PLAN, Arm
from stepwell.distill.plan import DIVERGENCES, Plan, parsed
from stepwell.distill.sparse import SparseRows
from stepwell.distill.student import load
from stepwell.distill.teach import Job, TeacherSection, teach

SEEDS = (0,)
STEPS, FEWER = 150, 30
ON_POLICY = 0.3
DRAWN = 12
"""Tokens drawn a place for `sampled`."""
ARMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ce, human pairs alone", {"loss": "ce"}),
    ("ce", {"loss": "ce"}),
    ("topk+rest", {"loss": "topk+rest"}),
    ("sampled", {"loss": "sampled"}),
    ("fkl", {"loss": "fkl"}),
    ("rkl", {"loss": "rkl"}),
    ("jsd:0.5", {"loss": "jsd:0.5"}),
    ("skew:0.1", {"loss": "skew:0.1"}),
    ("jsd:0.5, 30 % on policy", {"loss": "jsd:0.5", "on_policy": ON_POLICY}),
)


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Scores of each loss; quick: one seed, a fifth of the steps."""
    torch.set_num_threads(1)
    base = replace(PLAN, steps=FEWER if quick else STEPS, measure_every=10_000, warm_steps=30)
    arms: dict[str, list[Arm]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        for name, arm in of_seed(replace(base, seed=seed)).items():
            arms.setdefault(name, []).append(arm)
    ce_s = mean(arm.step_cpu_s for arm in arms["ce"])
    return {"losses": {name: row(found, ce_s) for name, found in arms.items()}}


def row(found: list[Arm], ce_s: float) -> dict[str, Any]:
    """A loss's line of the table."""
    return {
        "bleu": [round(arm.scores.bleu, 2) for arm in found],
        "ser": [round(arm.scores.ser, 4) for arm in found],
        "time_to_ce": round(mean(arm.step_cpu_s for arm in found) / ce_s, 2),
    }


def of_seed(plan: Plan) -> dict[str, Arm]:
    """Every loss, one seed."""
    few = e2e.shuffled(e2e.human(), NUM_LOW, 0)
    rows = e2e.taught(few, e2e.new_prompts([pair.mr for pair in few], NUM_NEW_LOW, 0))
    return {name: arm(replace(plan, **said), rows, name) for name, said in ARMS}


def arm(plan: Plan, of: Set, title: str) -> Arm:
    """Train one student and score it."""
    teacher = load(e2e.TEACHER)
    name, _ = parsed(plan.loss)
    means: dict[str, Any] = {"watch": e2e.bar(plan.loss, plan)}
    if name in DIVERGENCES:
        means["teacher"] = teacher
    elif name == "topk+rest":
        means["sparse"] = e2e.sparse(of, teacher)
    elif name == "sampled":
        means["sparse"] = SparseRows.open(drawn(of), teacher.tokenizer_hash)
    learned = [each for each in of.rows if each.id.startswith("human")] if "alone" in title else of.rows
    with tempfile.TemporaryDirectory() as out:
        model, done = e2e.student(plan, learned, Path(out) / "run", **means)
    told = e2e.measured(model)
    errors = f"slot errors {told.ser:.2%}"
    print(f"seed {plan.seed}, {title}: BLEU {told.bleu:.2f}, {errors}, {done.cpu_s:.0f} CPU-s", flush=True)
    return Arm(told, done.cpu_s / done.steps)


def drawn(of: Set) -> Path:
    """The teacher's probabilities of the same rows as drawn tokens, made once."""
    out = of.folder.parent.parent / f"drawn-{DRAWN}"
    section = TeacherSection(path=str(e2e.TEACHER.resolve()), give="logits", sampled=DRAWN)
    rows = [{"id": row.id, "prompt": row.prompt, "completion": row.completion} for row in of.rows]
    teach(Job(section, Path.cwd(), out), rows)
    return out / "logits"


if __name__ == "__main__":
    print(json.dumps(measure(quick="--quick" in sys.argv)))
