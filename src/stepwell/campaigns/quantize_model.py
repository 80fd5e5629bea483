"""The model of a search in torch: how far each recipe moves it, how much each matrix suffers, and a recipe's codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from stepwell.campaigns.quantize_job import NUM_CALIBRATION, Clock, Job, Results
from stepwell.campaigns.quantize_task import Row, tokens
from stepwell.distill import student
from stepwell.distill.student import Model
from stepwell.errors import DistillError
from stepwell.quantize import latency
from stepwell.quantize.calibrate import Tokens, measured
from stepwell.quantize.candidates import Shapes
from stepwell.quantize.curvature import Calibration
from stepwell.quantize.divergence import Reference
from stepwell.quantize.formats import FORMATS, PLAIN
from stepwell.quantize.frontier import Point
from stepwell.quantize.grids import Coded
from stepwell.quantize.network import EMBEDDING, HEAD, swapped
from stepwell.quantize.recipe import Method, Recipe, chosen
from stepwell.quantize.sensitivity import GGUF, NARROW, Entry, Table, predicted
from stepwell.quantize.shelf import Shelf, shelf

if TYPE_CHECKING:
    from torch import Tensor

NUM_JUDGED = 256
"""Texts of the search split, at most, that tell how far a recipe moves the model."""
METHOD: Method = "gptq"
BATCHED = 16
"""Answers side by side, where what many cost is wanted."""


class Moved(Struct, frozen=True):
    """How far a recipe moves the model."""

    kl: float
    error: float
    top1: float


class Parent:
    """What is to be quantized; read when it is first asked for anything that is not there yet."""

    def __init__(self, job: Job, results: Results, clock: Clock) -> None:
        self.job, self.results, self.clock = job, results, clock
        self.references: dict[int, Reference] = {}

    @cached_property
    def model(self) -> Model:
        """The parent. Raises DistillError where it has no weights."""
        return student.load(self.job.model)

    @cached_property
    def batches(self) -> list[Tokens]:
        """Calibration texts."""
        return tokens(self.model, some(self.job.task.calibration, NUM_CALIBRATION, self.job.seed))

    @cached_property
    def calibration(self) -> Calibration:
        """What matrices read on them, and what their errors cost."""
        return measured(self.model, self.batches)

    @cached_property
    def shelf(self) -> Shelf:
        """Matrices, each coded once a rule."""
        return shelf(self.model, self.calibration)

    @property
    def shapes(self) -> Shapes:
        """Rows and width of every matrix."""
        return self.shelf.shapes

    def reference(self, num_rows: int) -> Reference:
        """What the parent says over so many search rows; only the last one is kept."""
        if num_rows not in self.references:
            rows = some(self.job.task.search, num_rows, self.job.seed)
            self.references = {num_rows: Reference(self.model, tokens(self.model, rows))}
        return self.references[num_rows]

    def moved(self, recipe: Recipe, num_rows: int) -> Moved:
        """How far a recipe moves the model, on so many search rows."""

        def look() -> Moved:
            self.clock.check()
            return self.apart(self.shelf.all(recipe), num_rows)

        return self.results.kept("kl", (recipe, num_rows), Moved, look)

    def trained(self, recipe: Recipe, num_rows: int, codes: Mapping[str, Coded] | None = None) -> Moved:
        """The same for codes that training found; they are needed once, for nobody can find them again."""

        def look() -> Moved:
            if codes is None:
                raise DistillError("the divergence of what was trained is lost: remove the folder, and search again")
            return self.apart({name: each.decoded() for name, each in codes.items()}, num_rows)

        return self.results.kept("kl-trained", (recipe, num_rows), Moved, look)

    def apart(self, weights: Mapping[str, Tensor], num_rows: int) -> Moved:
        """How far the model is from itself with these matrices in place."""
        reference = self.reference(num_rows)  # before the weights are others
        with swapped(self.model, weights):
            found = reference.of(self.model)
        return Moved(found.kl, found.error, found.top1)

    def table(self) -> Table:
        """What each matrix is expected to lose by each format, from what its errors cost on the calibration texts.

        That is many times quicker than a pass for each (`stepwell quantize sensitivity`), and near enough to begin
        with: which of the recipes are good, passes over search texts decide.
        """

        def watch(done: int, num: int, _last: str) -> None:
            self.clock.check()
            self.job.tell(done, num, "what formats cost")

        def expect() -> Table:
            narrow = any(width % FORMATS["Q2_K"].block for _, width in self.shapes.values())
            return predicted(self.shelf, formats=NARROW if narrow else GGUF, method=METHOD, watch=watch)

        return self.results.kept("foreseen", NUM_CALIBRATION, Table, expect)

    @cached_property
    def products(self) -> Mapping[tuple[str, int, int], int]:
        """Nanoseconds of a product by format, rows and width."""
        wide = BATCHED if self.job.target == "cost" else 1
        formats = sorted({*GGUF, *NARROW, "F16"})  # the parent's file, and rows that no other format fits

        def time() -> tuple[latency.Product, ...]:
            footprint = sum(4 * rows * width for rows, width in self.shapes.values()) // 8
            return latency.measured(self.shapes.values(), formats, tokens=wide, footprint_bytes=footprint)

        return latency.nanoseconds(self.results.kept("products", wide, tuple[latency.Product, ...], time))

    def cost(self, entry: Entry) -> int:
        """What a matrix in a format costs, by the target."""
        if self.job.target == "size":
            return entry.num_bytes
        return self.time(entry.name, entry.format)

    def nanoseconds(self, recipe: Recipe) -> int:
        """What the products of a recipe are expected to take; 0 where only size counts."""
        if self.job.target == "size":
            return 0
        return sum(self.time(name, rule.format) for name, rule in chosen(recipe, self.shapes).items())

    def time(self, name: str, format_: str) -> int:
        """Nanoseconds of a matrix's product; an embedding beside a head is only looked up."""
        free = name == EMBEDDING and HEAD in self.shapes
        return 0 if free else self.products[format_, *self.shapes[name]]

    def coded(self, point: Point) -> dict[str, Coded]:
        """A recipe's codes, to be written."""
        rules = chosen(point.recipe, self.shapes)
        return {name: self.shelf.coded(name, rule) for name, rule in rules.items() if rule.format not in PLAIN}


def some(rows: Sequence[Row], num: int, seed: int) -> list[Row]:
    """So many rows by chance, the same ones every time; fewer are among more."""
    return Random(seed).sample(list(rows), len(rows))[:num]  # noqa: S311 - no secret
