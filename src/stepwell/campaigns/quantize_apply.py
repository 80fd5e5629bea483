"""A recipe's file: coded as a search codes it, so that the bytes are the same, and verified before it is placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec import Struct

from stepwell.campaigns.quantize_job import NUM_CALIBRATION
from stepwell.campaigns.quantize_model import some
from stepwell.campaigns.quantize_task import Task, tokens
from stepwell.distill import student
from stepwell.distill.student import Model
from stepwell.errors import DistillError
from stepwell.quantize import apply
from stepwell.quantize.compressed import placed, to_compressed
from stepwell.quantize.engine import Text
from stepwell.quantize.export import to_gguf
from stepwell.quantize.formats import FORMATS, PLAIN
from stepwell.quantize.manifest import shelve
from stepwell.quantize.network import matrices
from stepwell.quantize.recipe import Recipe, Rule, chosen, num_bytes
from stepwell.quantize.verify import verified, verified_folder
from stepwell.verified import Manifest

if TYPE_CHECKING:
    from stepwell.quantize.grids import Coded
    from stepwell.quantize.sensitivity import Watch

NUM_VERIFIED = 64
"""Rows of the search split that the engine is compared on."""
GGUF = "gguf"
BYTE = 8


class Made(Struct, frozen=True, kw_only=True):
    """What was made."""

    file: str
    sha256: str
    num_bytes: int
    """Of the file."""
    bits: float
    """A weight of the matrices, scales included."""
    formats: dict[str, int]
    """How many matrices have which."""
    passed: bool = True
    """Whether what the engine makes of it is what was meant; of compressed-tensors that is transformers."""
    complaints: tuple[str, ...] = ()
    figures: dict[str, float] = {}
    """Of the verification."""


def applied(
    folder: Path, recipe: Recipe, task: Task, out: Path, *, seed: int = 0, watch: Watch = lambda *_: None
) -> Made:
    """Code a model by a recipe and write it: a GGUF file, or a folder where the formats are compressed-tensors'.

    A file that does not pass its verification is not placed, and what lay there stays. Raises DistillError for a
    recipe that does not fit.
    """
    folder = folder.resolve()
    model = student.load(folder)
    shapes = {name: (weight.shape[0], weight.shape[1]) for name, weight in matrices(model).items()}
    rules = chosen(recipe, shapes)
    kind, wanted = plain(rules.values()), engine_of(rules.values())
    coded = made(model, recipe, task, seed, watch)
    bits = BYTE * num_bytes(recipe, shapes) / sum(rows * width for rows, width in shapes.values())
    formats = dict(Counter(rule.format for rule in rules.values()))
    if wanted == GGUF:
        return as_gguf(Written(folder, model, task, seed, bits, formats), coded, kind, out)
    return as_compressed(Written(folder, model, task, seed, bits, formats), coded, out)


@dataclass(frozen=True)
class Written:
    """What is known of a model that is written."""

    folder: Path
    model: Model
    task: Task
    seed: int
    bits: float
    formats: dict[str, int]


def made(model: Model, recipe: Recipe, task: Task, seed: int, watch: Watch) -> dict[str, Coded]:
    """The codes, from the calibration rows that a search of this seed looks at."""
    done: list[str] = []
    total = len(matrices(model))

    def tell(name: str) -> None:
        done.append(name)
        watch(len(done), total, name)

    batches = tokens(model, some(task.calibration, NUM_CALIBRATION, seed))
    found: dict[str, Coded] = apply.applied(model, recipe, batches, watch=tell)
    return found


def plain(rules: Iterable[Rule]) -> str:
    """The format of what is not coded. Raises DistillError where there are several: a file has one."""
    named = {rule.format for rule in rules if rule.format in PLAIN}
    if len(named) > 1:
        raise DistillError(f"has {' and '.join(sorted(named))} side by side: a file has one of them beside its codes")
    return named.pop() if named else "F16"


def engine_of(rules: Iterable[Rule]) -> str:
    """Whose formats these are. Raises DistillError where they are of two engines."""
    named = {FORMATS[rule.format].engine for rule in rules if rule.format not in PLAIN} or {GGUF}
    if len(named) > 1:
        raise DistillError(f"has formats of {' and '.join(sorted(named))}: no file holds both, name one kind")
    return named.pop()


def as_gguf(of: Written, coded: Mapping[str, Coded], kind: str, out: Path) -> Made:
    """A GGUF file, placed with its manifest."""
    out.parent.mkdir(parents=True, exist_ok=True)
    texts, corpus = compared(of)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as new:
        file = to_gguf(of.folder, Path(new) / out.name, kind, coded=coded, name=of.folder.name)
        told = verified(file, of.folder, of.model, texts, coded=coded, corpus=corpus)
        if told.passed:
            shelve(file, out.parent)
    return told_of(of, out, told)


def compared(of: Written) -> tuple[list[Text], list[str]]:
    """What the engine is compared on: rows of the search split as token ids, and their texts."""
    rows = some(of.task.search, NUM_VERIFIED, of.seed)
    texts = [(of.model.prompt_ids(row.prompt), of.model.text_ids(row.completion)) for row in rows]
    return texts, [text for row in rows for text in (row.prompt, row.completion)]


def told_of(of: Written, out: Path, told: Manifest) -> Made:
    """What was made, by its manifest."""
    return Made(
        file=str(out),
        sha256=told.sha256,
        num_bytes=told.num_bytes,
        bits=of.bits,
        formats=of.formats,
        passed=told.passed,
        complaints=told.complaints,
        figures=told.figures,
    )


def as_compressed(of: Written, coded: Mapping[str, Coded], out: Path) -> Made:
    """A folder as vLLM and transformers read it, with its manifest inside."""
    out.parent.mkdir(parents=True, exist_ok=True)
    texts, corpus = compared(of)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as new:
        made = to_compressed(of.folder, Path(new) / out.name, coded)
        told = verified_folder(made, of.folder, of.model, texts, coded, corpus=corpus)
        if told.passed:
            placed(made, out)
    return told_of(of, out, told)
