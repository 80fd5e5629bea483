"""Formats mixed by sensitivity against one format for all, at 3.6 bits a weight: `mixed_vs_uniform_36`.

Stated before the test set was read:

- Counted are all matrices, embedding and head included, with their scales: bytes in the file x 8 / weights. Norms are
  not; they are the same in every file.
- Mixed: each matrix in each format alone, measured on dev texts and foreseen from the curvature; allocated to
  the budget by both, the better one on dev repaired there by joint KL. All files are coded by the same method, on the
  same calibration texts.
- No GGUF format has 3.6 bits. So there are three comparisons, and the figure is the one that is hardest for us:
  `same_bytes`: mixed in no more bytes than Q3_K for all (3.44 bits), in the engine.
  `between`: mixed at 3.6 bits against what Q3_K and Q4_K for all come to there, ln KL on a line between them, in the
  engine.
  `int3_g32`: mixed at 3.6 bits against 3 bits with a step and a floor in 16 bits for every 32 weights, which no engine
  reads and which is counted as 3.59 bits as in our notes (its floors as 3 bits), in torch.
- KL is to the parent in 32 bits, a token of held-out human texts: E2E's test set for the house writer, the gate rows of
  the five tasks for their students, where these are trained. The figure is the house writer's.

    STEPWELL_DATA=... python -m bench.quantize.mixed
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import process_time

import torch
from recipes.writer import data

from bench.quantize import engine_kl
from stepwell.campaigns import quantize_task
from stepwell.distill import student
from stepwell.quantize import gptq, sensitivity
from stepwell.quantize.allocate import Choice, allocated
from stepwell.quantize.calibrate import Tokens, laid
from stepwell.quantize.calibrate import measured as calibrated
from stepwell.quantize.divergence import Divergence, Reference
from stepwell.quantize.engine_divergence import Spoken, spoken
from stepwell.quantize.engine_divergence import ratio as ratio_of
from stepwell.quantize.export import to_gguf
from stepwell.quantize.formats import PLAIN, Format
from stepwell.quantize.grids import fit
from stepwell.quantize.network import swapped
from stepwell.quantize.recipe import Recipe, chosen, num_bytes, uniform
from stepwell.quantize.repair import repaired
from stepwell.quantize.rounding import TRIES
from stepwell.quantize.shelf import Shelf, shelf

Texts = Sequence[tuple[list[int], list[int]]]
WRITER, TASKS = Path("models/house-writer"), Path("runs/tasks")
BITS = 3.6
INT3 = Format("int3_g32", 32, 0, 7, 32, 0, floors=True)
NUM_CALIBRATION, NUM_SENSITIVITY, NUM_REPAIR = 256, 48, 96
NUM_TEST = 630
"""As many as E2E's test set has."""
REPAIR_S = 120.0
QUICK = 12
SEED = 0


@dataclass(frozen=True)
class Case:
    """A model and its texts, as token ids."""

    name: str
    folder: Path
    model: student.Model
    calibration: Texts
    dev: Texts
    test: Texts
    quick: bool

    @cached_property
    def shelf(self) -> Shelf:
        """Its matrices."""
        return shelf(self.model, calibrated(self.model, self.laid(self.calibration)))

    @cached_property
    def parent(self) -> Spoken:
        """What it says of the test texts."""
        return spoken(self.model, self.test)

    @property
    def num_weights(self) -> int:
        """Of all matrices."""
        return sum(rows * width for rows, width in self.shelf.shapes.values())

    def laid(self, texts: Texts) -> list[Tokens]:
        """Texts in batches."""
        return laid(texts, pad=self.model.words.pad)

    def moved(self, weights: Mapping[str, torch.Tensor]) -> Divergence:
        """How far weights move it, on the test texts, in torch."""
        with swapped(self.model, weights):
            return self.parent.compared(spoken(self.model, self.test).logprobs)

    def served(self, recipe: Recipe) -> Divergence:
        """How far a recipe's file is from it, on the test texts, in llama.cpp."""
        rules = chosen(recipe, self.shelf.shapes)
        coded = {name: self.shelf.coded(name, rule) for name, rule in rules.items() if rule.format not in PLAIN}
        with TemporaryDirectory() as folder:
            return self.parent.diverges(to_gguf(self.folder, Path(folder) / "model.gguf", "F16", coded=coded))


def writer(*, quick: bool) -> Case:
    """The house writer, on E2E."""
    model = student.load(WRITER)
    train = [(pair.mr, pair.text) for pair in data.clean(data.read("train"))]
    held = {part: [(mr, refs[0]) for mr, refs in data.read(part).items()] for part in ("dev", "test")}
    return case("house-writer", WRITER, model, (train, held["dev"], held["test"]), quick=quick)


def students(*, quick: bool) -> list[Case]:
    """The students of tasks that are trained."""
    found = []
    for weights in sorted(TASKS.glob("*/run/student/model.safetensors")):
        task, folder = quantize_task.load(weights.parents[2].name), weights.parent
        model = student.load(folder)
        parts = [[(row.prompt, row.completion) for row in rows] for rows in (task.calibration, task.search, task.gate)]
        found.append(case(task.name, folder, model, (parts[0], parts[1], parts[2]), quick=quick))
    return found


def case(
    name: str, folder: Path, model: student.Model, parts: tuple[Sequence[tuple[str, str]], ...], *, quick: bool
) -> Case:
    """A model and so many texts of each part, by chance, the same every time."""
    most = (NUM_CALIBRATION, NUM_REPAIR, NUM_TEST)
    texts = [
        Random(SEED).sample(list(part), min(QUICK if quick else num, len(part)))
        for part, num in zip(parts, most, strict=True)
    ]
    ids = [[(model.prompt_ids(prompt), model.text_ids(text)) for prompt, text in part] for part in texts]
    return Case(name, folder, model, *ids, quick=quick)


def mixtures(of: Case, budgets: Mapping[str, int]) -> dict[str, Recipe]:
    """The best mixtures for some sizes, by the dev texts."""
    begun = process_time()
    few = Reference(of.model, of.laid(of.dev[:NUM_SENSITIVITY]))
    table = sensitivity.measured(of.model, of.shelf, few)
    print(f"  sensitivity of {len(table.names)} matrices: {process_time() - begun:.0f} CPU s", flush=True)
    more, found = Reference(of.model, of.laid(of.dev)), {}
    tables = (table, sensitivity.predicted(of.shelf))
    for name, budget in budgets.items():
        begun = process_time()
        picked = min((allocated(each.choices(), budget) for each in tables), key=partial(joint, of, more, table))
        limit_s = 0.0 if of.quick else REPAIR_S
        made = repaired(of.model, of.shelf, more, table, picked, budget=budget, limit_s=limit_s)
        told = f"KL {made.kl_before:.5f}, repaired {made.kl:.5f}" + ("" if made.complete else " (time was up)")
        print(f"  {name}: {told}, {process_time() - begun:.0f} CPU s", flush=True)
        found[name] = made.recipe
    return found


def joint(of: Case, reference: Reference, table: sensitivity.Table, picked: Mapping[str, Choice]) -> float:
    """How far a choice moves the model, on the dev texts."""
    with swapped(of.model, of.shelf.all(table.recipe(picked))):
        return float(reference.of(of.model).kl)


def int3(of: Case) -> dict[str, torch.Tensor]:
    """All matrices in 3 bits with a step and a floor a group of 32."""
    held = of.shelf.calibration
    assert held is not None  # noqa: S101 - this file measured it
    made = {}
    for name, weight in of.shelf.weights.items():
        grid = fit(INT3, weight, held.weights(name), tries=TRIES)
        made[name] = gptq.solved(weight, grid, held.terms[name], held.own.get(name)).decoded()
    return made


def between(low: Divergence, high: Divergence, share: float) -> Divergence:
    """What two uniform formats come to at a share of the way: ln KL on a line, text by text scaled to it."""
    kl = math.exp((1 - share) * math.log(low.kl) + share * math.log(high.kl))
    rows = low.rows.double() * (1 - share) / low.kl + high.rows.double() * share / high.kl
    return Divergence(kl, 0.0, (1 - share) * low.top1 + share * high.top1, rows * kl, low.tokens)


def ratios(of: Case) -> dict[str, tuple[float, float, float]]:
    """KL of the mixtures to that of their peers, with intervals over the texts."""
    print(f"{of.name}: {of.num_weights:,} weights, judged on {len(of.test)} texts", flush=True)
    shapes = of.shelf.shapes
    size = {name: num_bytes(uniform(name), shapes) for name in ("Q3_K", "Q4_K")}
    wanted = {"same_bytes": size["Q3_K"], "3.6": int(of.num_weights * BITS / 8)}
    recipes = {**mixtures(of, wanted), "Q3_K": uniform("Q3_K"), "Q4_K": uniform("Q4_K")}
    served = {name: of.served(recipe) for name, recipe in recipes.items()}
    torched = {"3.6": of.moved(of.shelf.all(recipes["3.6"])), "int3_g32": of.moved(int3(of))}
    sizes = {name: num_bytes(recipe, shapes) for name, recipe in recipes.items()}
    print(engine_kl.told(served, sizes))
    print(
        engine_kl.told(
            {f"{name} in torch": each for name, each in torched.items()},
            {"3.6 in torch": sizes["3.6"], "int3_g32 in torch": int(of.num_weights * 3.59 / 8)},
        )
    )
    share = (sizes["3.6"] - size["Q3_K"]) / (size["Q4_K"] - size["Q3_K"])
    return {
        "same_bytes": ratio_of(served["same_bytes"], served["Q3_K"]),
        "between": ratio_of(served["3.6"], between(served["Q3_K"], served["Q4_K"], share)),
        "int3_g32": ratio_of(torched["3.6"], torched["int3_g32"]),
    }


def measure(*, quick: bool = False) -> dict[str, float]:
    """The hardest ratio of the house writer; those of the students are printed."""
    torch.set_num_threads(1)
    logging.getLogger("gguf").setLevel(logging.WARNING)
    figures: dict[str, float] = {}
    for of in (writer(quick=quick), *([] if quick else students(quick=quick))):
        found = ratios(of)
        for name, (ratio, low, high) in found.items():
            print(f"  {name:<12} {ratio:.3f}  (95 %: {low:.3f} to {high:.3f})", flush=True)
        hardest = max(found, key=lambda name: found[name][0])
        print(f"  hardest: {hardest}", flush=True)
        figures.setdefault("mixed_vs_uniform_36", found[hardest][0])
    return figures


if __name__ == "__main__":
    print(measure())
