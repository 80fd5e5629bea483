"""When a student should meet its 2 bits: after training, late in it, or from its first step (`from_start_vs_late`).

Stated before anything was run: a new student of 1.2 M parameters, rows of 256, every matrix in Q2_K; the house writer
teaches it E2E's training texts (KL and cross-entropy), as many steps each way. Which of its averaged weights are the
best is decided on dev rows, as they are rounded. Scores are of greedy texts for E2E's test set with the numbers that
the file holds. One seed: a point of BLEU is chance.

    STEPWELL_DATA=... python -m bench.quantize.phases
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from msgspec import Struct
from msgspec.structs import replace
from recipes.writer import data
from recipes.writer.train import greedy

from stepwell.campaigns import learning, quantize_phases
from stepwell.distill import student
from stepwell.distill.data import Example
from stepwell.distill.plan import Plan, StudentSection
from stepwell.quality import slots, text
from stepwell.quantize.network import swapped
from stepwell.quantize.phases import Phase, picture, table
from stepwell.quantize.recipe import uniform
from stepwell.quantize.section import QuantizeSection

WRITER, KEPT = Path("models/house-writer"), Path("runs/bench-quantize-phases")
FORMAT, LATE_SHARE = "Q2_K", 0.2
STUDENT = StudentSection(hidden=256, layers=2, heads=4, kv_heads=1, inner=256)
PLAN = Plan(
    steps=240,
    rate=5e-3,
    optimizer="muon",
    batch_tokens=2048,
    loss="fkl",
    warm_steps=20,
    average=0.98,
    save_every=60,
)
NUM_LEARN, NUM_DEV, QUICK_STEPS = 12_000, 150, 10


class Score(Struct, frozen=True):
    """Of greedy texts, in percent."""

    bleu: float
    slot_errors: float


def job(steps: int) -> learning.Job:
    """What each way learns."""
    pairs = random.Random(0).sample(data.clean(data.read("train")), NUM_LEARN)
    dev = list(data.read("dev").items())[:NUM_DEV]
    return learning.Job(
        plan=replace(PLAN, steps=steps),
        student=STUDENT,
        words=str(WRITER),
        teacher=str(WRITER),
        sparse="",
        learn=[Example(pair.mr, pair.text) for pair in pairs],
        dev=[Example(mr, refs[0]) for mr, refs in dev],
    )


def scored(codes: Mapping[str, torch.Tensor], model: student.Model, num: int) -> Score:
    """Of a student with these weights."""
    test = dict(list(data.read("test").items())[:num])
    with swapped(model, codes):
        said = greedy(model, list(test))
    wrong = slots.error_rate(zip(map(slots.facts_of, test), said, strict=True))
    return Score(text.bleu(said, list(test.values())).score, 100 * wrong)


def scores(folders: Mapping[str, Path], told: learning.Job, num: int) -> dict[str, Score]:
    """Of every way, and of the student without quantization."""
    found = {}
    for way, folder in folders.items():
        model = student.load(folder / quantize_phases.STUDENT)
        after = way == quantize_phases.AFTER
        if after:
            found["none"] = scored({}, model, num)
            plain = quantize_phases.coded(model, uniform(FORMAT, "round"), told.learn, learned=False)
            found["round"] = scored({name: each.decoded() for name, each in plain.items()}, model, num)
        codes = quantize_phases.coded(model, uniform(FORMAT), told.learn, learned=not after)
        found[way] = scored({name: each.decoded() for name, each in codes.items()}, model, num)
    return found


def measure(*, quick: bool) -> dict[str, float]:
    """The figures, a table, and a picture beside the runs."""
    torch.set_num_threads(1)
    out, num = (KEPT / "quick", 16) if quick else (KEPT, 10_000)
    told = job(QUICK_STEPS if quick else PLAN.steps)
    wanted = quantize_phases.ways(
        uniform(FORMAT), QuantizeSection(format=FORMAT, late_share=LATE_SHARE), told.plan.steps
    )
    folders = quantize_phases.learned(told, wanted, out, processes=1, watch=lambda *_: None)
    phases = quantize_phases.phases(told, uniform(FORMAT), folders)
    print("\n".join(table(phases)), flush=True)
    (out / "phases.svg").write_text(picture(phases), encoding="utf-8")
    found = scores(folders, told, num)
    for way, score in found.items():
        print(f"{way:<6} BLEU {score.bleu:.2f}, slot errors {score.slot_errors:.2f} %", flush=True)
    return {"from_start_vs_late": found["start"].bleu - found["late"].bleu, **figures(phases, found)}


def figures(phases: list[Phase], found: Mapping[str, Score]) -> dict[str, float]:
    """Everything, by name."""
    told = {f"phase_{each.way}_loss": each.loss for each in phases}
    told |= {f"phase_{each.way}_cpu_minutes": each.cpu_s / 60 for each in phases}
    told |= {f"phase_{way}_bleu": score.bleu for way, score in found.items()}
    return told | {f"phase_{way}_slot_errors": score.slot_errors for way, score in found.items()}


if __name__ == "__main__":
    print(measure(quick="--quick" in sys.argv))
