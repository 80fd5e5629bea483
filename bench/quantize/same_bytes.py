"""Closer to the parent in no more bytes than llama.cpp's own files: `kl_q4_0_ratio` and `kl_vs_q4_k_s`.

Stated before the test texts were read:

- KL is to the parent in 32 bits, a token of held-out human texts, of files in llama.cpp: E2E's test set for the house
  writer, the gate rows of the five tasks for their students, where these are trained. The figures are the writer's.
- All files look at the same calibration texts, human texts of the train set: ours for the curvature, llama.cpp's for
  the importances ("imatrix").
- `kl_q4_0_ratio`: matrix by matrix the formats of llama.cpp's Q4_0, our codes in place of its. Beside it are told the
  ratio to its Q4_0 with importances, and that of Q4_0 for every matrix ("pure").
- `kl_vs_q4_k_s`: of our files that are not larger than its Q4_K_S with importances, the one that is best on dev texts:
  the same formats, or formats mixed by sensitivity in the same bytes.

    STEPWELL_DATA=... python -m bench.quantize.same_bytes
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import process_time

import torch
from recipes.writer import data

from bench.quantize import engine_kl, peers
from stepwell.campaigns import quantize_task
from stepwell.distill import student
from stepwell.quantize import sensitivity
from stepwell.quantize.allocate import allocated
from stepwell.quantize.calibrate import Calibration, laid
from stepwell.quantize.calibrate import measured as calibrated
from stepwell.quantize.divergence import Divergence, Reference
from stepwell.quantize.engine import Text
from stepwell.quantize.engine_divergence import Spoken, spoken
from stepwell.quantize.engine_divergence import ratio as ratio_of
from stepwell.quantize.export import to_gguf
from stepwell.quantize.network import swapped
from stepwell.quantize.recipe import Recipe, Rule, num_bytes
from stepwell.quantize.repair import repaired
from stepwell.quantize.shelf import Shelf, shelf

WRITER, TASKS = Path("models/house-writer"), Path("runs/tasks")
Pairs = Sequence[tuple[str, str]]
NUM_CALIBRATION, NUM_DEV, NUM_TEST, NUM_SENSITIVITY = 1024, 128, 300, 48
REPAIR_S = 90.0
SHARE_OF_QUICK = 16
SEED = 0


@dataclass(frozen=True)
class Case:
    """A model and its texts, as token ids."""

    folder: Path
    model: student.Model
    calibration: Sequence[Text]
    dev: Sequence[Text]
    test: Sequence[Text]
    repair_s: float

    @cached_property
    def calibrated(self) -> Calibration:
        """What its matrices read."""
        return calibrated(self.model, laid(self.calibration, pad=self.model.words.pad))

    @cached_property
    def shelf(self) -> Shelf:
        """Its matrices."""
        return shelf(self.model, self.calibrated)

    @cached_property
    def parent(self) -> Spoken:
        """What it says of the test texts."""
        return spoken(self.model, self.test)

    def on_dev(self, num: int = NUM_DEV) -> Reference:
        """What it says of dev texts."""
        return Reference(self.model, laid(self.dev[:num], pad=self.model.words.pad))


def writer(share: int) -> Case:
    """The house writer, on E2E as people wrote it."""
    train = [(mr, text) for mr, texts in sorted(data.read("train").items()) for text in texts]
    held = [[(mr, texts[0]) for mr, texts in sorted(data.read(part).items())] for part in ("dev", "test")]
    return case(WRITER, (train, *held), share)


def students(share: int) -> list[Case]:
    """The students of tasks that are trained."""
    found = []
    for folder in sorted(each.parent for each in TASKS.glob("*/run/student/config.json")):
        task = quantize_task.load(folder.parent.parent.name)
        rows = (task.calibration, task.search, task.gate)
        found.append(case(folder, [[(row.prompt, row.completion) for row in part] for part in rows], share))
    return found


def case(folder: Path, parts: Sequence[Pairs], share: int) -> Case:
    """A model and so many texts of each part, by chance, the same every time."""
    model, texts = student.load(folder), []
    for part, num in zip(parts, (NUM_CALIBRATION, NUM_DEV, NUM_TEST), strict=True):
        drawn = Random(SEED).sample(list(part), min(num // share, len(part)))
        texts.append([(model.prompt_ids(prompt), model.text_ids(text)) for prompt, text in drawn])
    return Case(folder, model, *texts, repair_s=REPAIR_S / share)


# --- files


def as_in(of: Case, theirs: Path) -> Recipe:
    """Matrix by matrix the formats of a file of llama.cpp's."""
    names = peers.names(theirs)
    rules = [Rule(format_, "gptq", names[name]) for name, format_ in peers.formats(theirs).items() if name in names]
    wanted = {rule.match: rule for rule in rules}
    return Recipe(Rule("Q8_0", "gptq"), tuple(wanted[name] for name in of.shelf.shapes))


def mixed(of: Case, budget: int) -> Recipe:
    """Formats by sensitivity in so many bytes of matrices, chosen and repaired on dev texts."""
    begun = process_time()
    table = sensitivity.measured(of.model, of.shelf, of.on_dev(NUM_SENSITIVITY))
    picked = allocated(table.choices(), budget)
    made = repaired(of.model, of.shelf, of.on_dev(), table, picked, budget=budget, limit_s=of.repair_s)
    print(
        f"  mixed: dev KL {made.kl_before:.5f}, repaired {made.kl:.5f}, {process_time() - begun:.0f} CPU s", flush=True
    )
    return made.recipe


def ours(of: Case, recipe: Recipe, out: Path) -> Path:
    """The file of a recipe."""
    rules = {name: recipe.rule(name) for name in of.shelf.shapes}
    return to_gguf(of.folder, out, coded={name: of.shelf.coded(name, rule) for name, rule in rules.items()})


def dev_kl(of: Case, recipe: Recipe) -> float:
    """How far a recipe is from the parent on dev texts, in torch."""
    parent = of.on_dev()
    with swapped(of.model, of.shelf.all(recipe)):
        return float(parent.of(of.model).kl)


def best(of: Case, theirs: Path) -> Recipe:
    """The recipe with the smallest KL on dev texts whose matrices take no more bytes than a file's."""
    same = as_in(of, theirs)
    budget = num_bytes(same, of.shelf.shapes)
    found = {"same formats": same, "mixed formats": mixed(of, budget)}
    scores = {name: dev_kl(of, recipe) for name, recipe in found.items()}
    name = min(scores, key=lambda each: scores[each])
    print(f"  on dev: {', '.join(f'{each} {kl:.5f}' for each, kl in scores.items())}; taken: {name}", flush=True)
    return found[name]


def measured(of: Case, folder: Path) -> dict[str, float]:
    """Files, their KL, and the ratios."""
    begun = process_time()
    imatrix = peers.squares(of.calibrated)
    print(f"{of.folder}: calibrated on {len(of.calibration)} texts in {process_time() - begun:.0f} CPU s", flush=True)
    files = {}
    for name in ("Q4_0", "Q4_K_S"):
        for guided in (False, True):
            kept = folder / f"{name}{'-imatrix' if guided else ''}.gguf"
            files[kept.stem] = peers.preset(of.folder, name, kept, calibration=imatrix if guided else None)
    files["Q4_0-pure"] = peers.preset(of.folder, "Q4_0", folder / "Q4_0-pure.gguf", pure=True)
    for name in ("Q4_0", "Q4_0-pure", "Q4_K_S"):
        files[f"ours as {name}"] = ours(of, as_in(of, files[name]), folder / f"ours-{name}.gguf")
    files["ours, best"] = ours(of, best(of, files["Q4_K_S-imatrix"]), folder / "ours-best.gguf")
    sizes = {name: peers.matrix_bytes(file) for name, file in files.items()}
    if sizes["ours, best"] > sizes["Q4_K_S-imatrix"] or sizes["ours as Q4_0"] != sizes["Q4_0"]:
        raise RuntimeError(f"our files are not of the size that they are compared at: {sizes}")
    found = {name: of.parent.diverges(file) for name, file in files.items()}
    print(engine_kl.told(found, sizes))
    return {name: told(name, found, *pair) for name, pair in PAIRS.items()}


PAIRS = {
    "kl_q4_0_ratio": ("ours as Q4_0", "Q4_0"),
    "to Q4_0 with importances": ("ours as Q4_0", "Q4_0-imatrix"),
    "pure Q4_0": ("ours as Q4_0-pure", "Q4_0-pure"),
    "kl_vs_q4_k_s": ("ours, best", "Q4_K_S-imatrix"),
    "the same formats": ("ours as Q4_K_S", "Q4_K_S-imatrix"),
}
"""What is compared with what."""


def told(what: str, found: Mapping[str, Divergence], mine: str, theirs: str) -> float:
    """One ratio, printed with its interval."""
    ratio, low, high = ratio_of(found[mine], found[theirs])
    print(f"  {what:<26} {ratio:.3f}  (95 %: {low:.3f} to {high:.3f})", flush=True)
    return ratio


def measure(*, quick: bool = False) -> dict[str, float]:
    """The house writer's ratios; those of the students are printed, and the largest of them are told."""
    torch.set_num_threads(1)
    logging.getLogger("gguf").setLevel(logging.WARNING)
    share = SHARE_OF_QUICK if quick else 1
    figures: dict[str, float] = {}
    for of in (writer(share), *([] if quick else students(share))):
        with TemporaryDirectory() as folder:
            for name, ratio in measured(of, Path(folder)).items():
                if of.folder == WRITER and name.startswith("kl_"):
                    figures[name] = ratio
                elif name.startswith("kl_"):
                    figures[f"{name}_students"] = max(ratio, figures.get(f"{name}_students", 0.0))
    return figures


if __name__ == "__main__":
    print(measure())
