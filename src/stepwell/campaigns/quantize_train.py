"""Training for a recipe that no rounding afterwards meets: the model is taught by itself, as it was.

The parent tells its copy, whose weights are rounded in every step, all that it expects at every token of the
calibration rows (KL, nothing else; LLM-QAT, Liu et al. 2023). A rate too high ruins more than it mends, so a few are
tried; what is kept is what the search rows say is nearest to the parent, and that may be GPTQ's codes. Training begins
with GPTQ's weights, or with the model's own (docs/quantization.md has both measured).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from stepwell.campaigns.quantize_job import NUM_CALIBRATION
from stepwell.campaigns.quantize_task import Row, Task, tokens
from stepwell.distill import checkpoint, student, train
from stepwell.distill.data import Example
from stepwell.distill.plan import Plan
from stepwell.distill.student import Model
from stepwell.quality.files import lay
from stepwell.quantize.apply import applied
from stepwell.quantize.divergence import Reference
from stepwell.quantize.fake import Fake, coded, fake, shapes_of
from stepwell.quantize.grids import Coded
from stepwell.quantize.network import short, swapped
from stepwell.quantize.recipe import Recipe

RATES = (5e-4, 2e-4)
NUM_JUDGED = 128
"""Rows that tell how near a candidate is."""
TRIAL_STEPS, LEAST_STEPS, MOST_STEPS = 3, 20, 1_000
SHARE = 0.85
"""Of the time, for steps; the rest is for measuring."""
MEASURED = 4
"""Times that a candidate is measured on its way."""
PLAN = Plan(loss="fkl", alpha=1.0, decay=0.0, batch_tokens=2048, fall_share=0.9, average=0.99, metric="-kl")
BEGUN, TRIAL, STEPS, FOUND = "begun", "trial", "steps.json", "trained.json"

Start = Literal["own", "gptq"]
Watch = Callable[[int, int, str], None]
"""Told how many steps are done, of how many, and how it goes."""


class Candidate(Struct, frozen=True):
    """One rate's best weights, or the GPTQ weights where the rate is 0."""

    rate: float
    kl: float
    """To the parent, on the search rows."""
    steps: int = 0
    cpu_s: float = 0.0


class TimeIsUpError(Exception):
    """The time for a candidate has ended; its best so far counts."""


def trained(
    folder: Path,
    recipe: Recipe,
    task: Task,
    out: Path,
    seconds: float,
    *,
    rates: Sequence[float] = RATES,
    most_steps: int = MOST_STEPS,
    start: Start = "gptq",
    watch: Watch = lambda *_: None,
) -> Mapping[str, Coded]:
    """Codes of the recipe's matrices, the nearest to the parent that so many seconds bring; all else stays as it is.

    `out` keeps each rate's run, so that one that was cut short goes on, and says in trained.json what was tried. Raises
    DistillError where a format does not fit.
    """
    end_s = monotonic() + seconds
    out.mkdir(parents=True, exist_ok=True)
    parent = student.load(folder)
    best: Mapping[str, Coded] = applied(parent, recipe, tokens(parent, task.calibration[:NUM_CALIBRATION]))
    reference = Reference(parent, tokens(parent, task.search[:NUM_JUDGED]))
    with swapped(parent, {name: each.decoded() for name, each in best.items()}):
        found = [Candidate(0.0, reference.of(parent).kl)]
        if start == "gptq" and not (out / BEGUN).is_dir():
            student.save(parent, out / BEGUN, {"from": student.fingerprint(folder)})
    if not (out / BEGUN).is_dir():
        student.save(parent, out / BEGUN, {"from": student.fingerprint(folder)})
    lesson = Lesson(parent, fake(recipe, shapes_of(parent)), examples(task.calibration), reference, out)
    steps = lesson.steps_within((end_s - monotonic()) / max(1, len(rates)), most_steps)
    for at, rate in enumerate(rates if steps >= LEAST_STEPS else ()):
        share_s = (end_s - monotonic()) / (len(rates) - at)
        told, weights = lesson.learned(of_rate(rate, steps), share_s, watch)
        if told.kl < min(each.kl for each in found):
            best = coded(weights, recipe)
        found.append(told)
    lay(out / FOUND, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return best


def of_rate(rate: float, steps: int) -> Plan:
    """The settings of a candidate."""
    often = max(1, steps // MEASURED)
    warm = max(1, steps // 20)
    return replace(PLAN, rate=rate, steps=steps, warm_steps=warm, save_every=often, measure_every=often)


@dataclass(frozen=True)
class Lesson:
    """What every candidate learns, from whom, and how it is judged."""

    parent: Model
    transform: Fake
    rows: Sequence[Example]
    reference: Reference
    out: Path

    def steps_within(self, seconds: float, most: int) -> int:
        """How many steps so much time allows; written down, so that a run that goes on has as many."""
        kept, taken = self.out / STEPS, list[float]()
        if kept.is_file():
            return int(msgspec.json.decode(kept.read_bytes()))
        shutil.rmtree(self.out / TRIAL, ignore_errors=True)
        self.train(replace(PLAN, steps=TRIAL_STEPS), self.out / TRIAL, lambda _: taken.append(monotonic()))
        step_s = max(1e-6, (taken[-1] - taken[0]) / (len(taken) - 1))
        steps = min(most, int(SHARE * seconds / step_s))
        lay(kept, msgspec.json.encode(steps))
        return steps

    def learned(self, plan: Plan, seconds: float, watch: Watch) -> tuple[Candidate, Model]:
        """One rate's run, or what there is of it when the time is up, and its best weights."""
        end_s = monotonic() + seconds
        run = self.out / f"rate-{plan.rate:g}"

        def heard(told: train.Told) -> None:
            watch(told.step, plan.steps, f"rate {plan.rate:g}, KL {told.loss:.4f}")
            if monotonic() > end_s:
                raise TimeIsUpError

        with suppress(TimeIsUpError):
            self.train(plan, run, heard)
        return self.best(run, plan.rate)

    def train(self, plan: Plan, run: Path, watch: Callable[[train.Told], None]) -> None:
        """Train; only what is coded learns, for all else is taken from the parent's folder."""
        model = student.load(self.out / BEGUN)
        for name, weight in model.module.named_parameters():
            weight.requires_grad_(short(name) in self.transform.formats)
        train.train(
            plan,
            model,
            self.rows,
            run,
            teacher=self.parent,
            transform=self.transform,
            dev=lambda judged: {"kl": self.reference.of(judged).kl},
            watch=watch,
        )

    def best(self, run: Path, rate: float) -> tuple[Candidate, Model]:
        """The best weights of a run so far; none at all are infinitely far away."""
        held = checkpoint.read(run, self.parent.device)
        progress = checkpoint.Progress() if held is None else held[0]
        folder = run / f"step-{progress.best_step}"
        kl = progress.best["kl"] if folder.is_dir() else float("inf")
        told = Candidate(rate, kl, progress.step, progress.cpu_s)
        return told, student.load(folder if folder.is_dir() else self.out / BEGUN)


def examples(rows: Sequence[Row]) -> list[Example]:
    """Rows to learn from."""
    return [Example(each.prompt, each.completion) for each in rows]
