"""How much smaller the search's file is than the best preset that passes, on five tasks: `search_gain_pct`.

Stated before anything was run:

- Margin: one point. Where a task is scored by BLEU, one BLEU, and, where its facts can be checked (E2E), one answer in
  a hundred; where a label is right or wrong, one answer in a hundred.
- A file passes where the lower bound (one-sided, 95 %) of its score minus the parent's, paired by prompt, lies above
  minus the margin (`quantize_score.compared`, the search's own rule). The parent is the same model in 16 bits; all
  files answer in the engine.
- The best preset is chosen of llama.cpp's by the very rule that chooses the winner (`quantize/search.py`): the gate
  split tests the nearest to the parent, then smaller ones, until one fails. It may be a mix that `llama-quantize`
  makes or one format for all; one that a third of the search rows shows to be worse is not asked the rest. Two more
  figures: presets that pass on the search split alone, and presets with importances ("imatrix").
- The winner is the search's. Where none passes, the model stays as it is: its 16-bit file counts. The search has twenty
  minutes of one processor, and trains for files of a fifth of the 16-bit one where nothing so small passes.
- Bytes are of the whole file, tokenizer included; those of matrices alone are told beside them.
- A false pass is a winner whose score on the sealed split, which neither the search nor this benchmark has looked at,
  lies below the parent's by more than the margin. How many do not show it by the lower bound as well is told.
- The rule of the search was changed once, after a first measurement (26 November 2026: 5.9 percent), by what was seen
  on rows that were parted otherwise; then rows were parted anew (`recipes.tasks.sources.SALT`), students trained anew.

    STEPWELL_DATA=... python -m bench.quantize.gain
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean

from msgspec import Struct
from recipes.tasks.sources import NAMES

from bench.quantize import presets, tasks
from bench.quantize.presets import Preset
from stepwell.campaigns import quantize, quantize_engine, quantize_score, quantize_task
from stepwell.campaigns.quantize_job import Clock, Job, Results
from stepwell.campaigns.quantize_task import BLEU, Row, Task
from stepwell.campaigns.quantize_train import trained
from stepwell.distill import student
from stepwell.quality.files import sha256_of
from stepwell.quantize import search
from stepwell.quantize.engine_divergence import Spoken, spoken
from stepwell.quantize.export import to_gguf
from stepwell.quantize.frontier import Difference, Point, size
from stepwell.quantize.recipe import uniform

KEPT = Path("runs/bench-quantize-gain")
MARGIN = {True: "1bleu", False: "0.01"}
"""One point, of what the task is scored by."""
BUDGET_S, QUICK_BUDGET_S = 1200.0, 200.0
"""CPU time of a search."""
AT_MOST = 0.2
QUICK = ("clinc150",)
"""A quick run is of one task."""
RATES = (5e-4,)
"""One, so that it has all of the time."""
NUM_JUDGED = 128
"""Search rows that tell how far a preset has moved."""
FIRST = 3
"""A preset is asked the first of so many parts of the rows, then all."""
CPU_HOURS_ENOUGH_S = 24 * 3600.0


@dataclass(frozen=True)
class Bench:
    """One task's students and files under one rule."""

    job: Job
    results: Results
    parent: Path
    """The model in 16 bits."""

    @cached_property
    def expected(self) -> Spoken:
        """What the parent expects along some search rows."""
        model = student.load(self.job.model)
        rows = self.task.search[:NUM_JUDGED]
        return spoken(model, [(model.prompt_ids(each.prompt), model.text_ids(each.completion)) for each in rows])

    def moved(self, file: Path) -> float:
        """A file's KL to the parent, nats a token, in the engine."""
        key = (sha256_of(file), NUM_JUDGED)
        return self.results.kept("moved", key, float, lambda: self.expected.diverges(file).kl)

    @property
    def task(self) -> Task:
        """The task."""
        return self.job.task

    def compared(self, file: Path, rows: Sequence[Row]) -> tuple[Difference, ...]:
        """A file beside the parent on some rows, both in the engine."""
        clock = Clock(CPU_HOURS_ENOUGH_S)
        said, parent = (
            quantize_engine.answers(self.job, self.results, clock, each, rows).texts for each in (file, self.parent)
        )
        return quantize_score.compared(rows, said, parent, quantize.planned(self.job))


class Told(Struct, frozen=True):
    """What a task came to: percent that the winner is smaller, and how it fares on the sealed split."""

    gain_pct: float
    matrices_pct: float
    """Of the matrices alone."""
    easier_pct: float
    """Than the smallest preset that passes on the search split, whatever the gate split says."""
    imatrix_pct: float
    """Than a preset that may have importances."""
    false_pass: bool
    shown: bool
    """Whether the sealed split alone would let the winner pass."""


def measure(*, quick: bool = False) -> dict[str, float]:
    """The figures; `quick`: of one task, with little time to search."""
    names = QUICK if quick else NAMES
    budget_s = QUICK_BUDGET_S if quick else BUDGET_S
    told = {name: one(name, budget_s) for name in names}
    return {
        "search_gain_pct": round(mean(each.gain_pct for each in told.values()), 2),
        **{
            f"search_gain_{what}_pct": round(mean(getattr(each, f"{what}_pct") for each in told.values()), 2)
            for what in ("matrices", "easier", "imatrix")
        },
        "false_passes": sum(each.false_pass for each in told.values()),
        "sealed_not_shown": sum(not each.shown for each in told.values()),
        **{f"search_gain_{name}_pct": round(each.gain_pct, 2) for name, each in told.items()},
    }


def one(name: str, budget_s: float) -> Told:
    """A task: its student, its presets, its search, and the sealed verdict."""
    made = tasks.made(name)
    print(f"  {name}: {made.num_parameters:,} parameters, trained in {made.cpu_s:.0f} CPU seconds", flush=True)
    bench = opened(made, KEPT / name, budget_s)
    ladder = presets.made(bench.job.model, bench.task, bench.job.out.parent / "presets")
    stay = presets.read("16 bits", bench.parent)
    preset, easier = best(bench, [each for each in ladder if not each.guided], stay)
    guided, _ = best(bench, [each for each in ladder if each.guided], stay)
    guided = min(preset, guided, key=lambda each: each.num_bytes)
    found = quantize.searched(bench.job)
    proven = found.winner if found.status == "found" else None
    file = bench.job.out / f"{made.student.name}.gguf"
    winner = presets.read(proven.name, file) if proven else stay
    sealed = bench.compared(winner.file, sealed_rows(name))
    gain = Told(
        gain_pct=smaller(winner.num_bytes, preset.num_bytes),
        matrices_pct=smaller(winner.matrix_bytes, preset.matrix_bytes),
        easier_pct=smaller(winner.num_bytes, easier.num_bytes),
        imatrix_pct=smaller(winner.num_bytes, guided.num_bytes),
        false_pass=any(each.score - each.parent < -each.margin for each in sealed),
        shown=all(each.passes for each in sealed),
    )
    print(f"    search: {found.status} ({found.why}), {said(winner)}; sealed: {differences(sealed)}")
    print(f"    {gain.gain_pct:.1f} % smaller; matrices alone {gain.matrices_pct:.1f} %", flush=True)
    return gain


def opened(made: tasks.Made, out: Path, budget_s: float) -> Bench:
    """A task's bench. What was answered before by the same file is not asked again, nor is the same plan searched."""
    job = Job(
        model=made.student,
        task=made.task,
        margin=MARGIN[made.task.scorer == BLEU],
        out=out,
        at_most=AT_MOST,
        budget_s=budget_s,
        cpu=True,
        train=partial(trained, rates=RATES),
    )
    (out / "said").mkdir(parents=True, exist_ok=True)
    job = replace(job, out=out / f"search-{quantize.planned(job).sha256[:8]}")
    parent = to_gguf(made.student, out / "parent.gguf", "F16", name=made.task.name)
    return Bench(job, Results(out / "said", made.task.identity), parent)


def best(bench: Bench, ladder: Sequence[Preset], stay: Preset) -> tuple[Preset, Preset]:
    """The preset that the search's rule chooses, and the smallest that passes on the search split; or `stay`."""
    by_name = {each.name: each for each in ladder}
    points = [searched(bench, each) for each in ladder]
    ordered = search.order(points, size, alpha=bench.job.alpha, num_gated=len(bench.task.gate))
    tested, winner = search.gated(ordered, lambda each: bench.compared(by_name[each.name].file, bench.task.gate))
    for point in tested:
        verdict = "passes" if all(one.passes for one in point.gated) else "fails"
        print(f"    {said(by_name[point.name])} {verdict} on the gate split: {differences(point.gated)}", flush=True)
    smallest = min((each for each in points if each.passes), key=size, default=None)
    return by_name[winner.name] if winner else stay, by_name[smallest.name] if smallest else stay


def searched(bench: Bench, preset: Preset) -> Point:
    """A preset with its score on the search split, or on the part of it that rules it out."""
    rows = bench.task.search
    part_rows = rows[: len(rows) // FIRST]
    part = bench.compared(preset.file, part_rows)
    told = part if any(each.hopeless for each in part) else bench.compared(preset.file, rows)
    return Point(
        name=preset.name,
        recipe=uniform("F16"),
        bits=0.0,
        num_bytes=preset.num_bytes,
        kl=bench.moved(preset.file),
        preset=True,
        searched=told,
        num_searched=len(part_rows if told is part else rows),
    )


def sealed_rows(name: str) -> tuple[Row, ...]:
    """The rows that nothing else has looked at."""
    return quantize_task.merged(quantize_task.rows(tasks.KEPT / name / "sealed.jsonl"))


def smaller(one: int, other: int) -> float:
    """Percent that one is smaller."""
    return 100 * (1 - one / other)


def said(preset: Preset) -> str:
    """A file in words."""
    return f"{preset.name}, {preset.num_bytes:,} bytes ({preset.matrix_bytes:,} of matrices)"


def differences(found: Sequence[Difference]) -> str:
    """Scores in words."""
    return ", ".join(
        f"{each.metric} {each.score:.4g} for {each.parent:.4g} (bounds {each.low:+.4f}, {each.high:+.4f})"
        for each in found
    )


if __name__ == "__main__":
    print(json.dumps(measure()))
