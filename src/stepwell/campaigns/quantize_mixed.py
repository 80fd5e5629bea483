"""A task's sensitivities, and the best mixture of formats for a size or a measured latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import Struct

from stepwell.campaigns.quantize_job import NUM_CALIBRATION
from stepwell.campaigns.quantize_model import some
from stepwell.campaigns.quantize_task import Task, tokens
from stepwell.distill import student
from stepwell.distill.student import Model
from stepwell.errors import DistillError
from stepwell.quantize import latency, sensitivity
from stepwell.quantize.allocate import allocated
from stepwell.quantize.calibrate import measured
from stepwell.quantize.divergence import Reference
from stepwell.quantize.formats import format_of
from stepwell.quantize.network import swapped
from stepwell.quantize.recipe import Method, Recipe
from stepwell.quantize.repair import repaired
from stepwell.quantize.sensitivity import Entry, Table, Watch
from stepwell.quantize.shelf import Shelf, shelf

NANO = 1e6
"""Nanoseconds of a millisecond."""
BYTE = 8


@dataclass(frozen=True)
class Subject:
    """A model, its matrices calibrated on a task, and what it says on rows of the search split."""

    model: Model
    shelf: Shelf
    reference: Reference


class Budget(Struct, frozen=True):
    """What a mixture may take: bits a weight, bytes of all matrices, or milliseconds of a token's products."""

    kind: Literal["bits", "bytes", "ms"]
    value: float


class Mixed(Struct, frozen=True):
    """A mixture."""

    recipe: Recipe
    num_bytes: int
    """Of the matrices."""
    bits: float
    """A weight, scales included."""
    ms: float | None
    """Of a token's products, where that was measured."""
    kl: float
    """Joint: nats a token to the parent, on the rows that judged the single ones."""
    error: float
    kl_sum: float | None
    """What the single ones add up to; None where others were quantized, too, or losses were foreseen."""
    kl_before: float
    """Joint, before it was repaired."""


class Sensitivity(Struct, frozen=True):
    """All that was found."""

    model: str
    task: str
    table: Table
    mixed: Mixed | None = None


def subject(folder: Path, task: Task, *, num_rows: int, seed: int) -> Subject:
    """Load, calibrate, and let the parent speak. Raises DistillError."""
    model = student.load(folder.resolve())
    calibration = measured(model, tokens(model, some(task.calibration, NUM_CALIBRATION, seed)))
    reference = Reference(model, tokens(model, some(task.search, num_rows, seed)))
    return Subject(model, shelf(model, calibration), reference)


def table(
    of: Subject, formats: Sequence[str], method: Method, base: Recipe | None, watch: Watch | None = None
) -> Table:
    """Each matrix in each format, as the search rows judge it. Raises DistillError for a format that there is not."""
    wanted = formats_of(of, formats)
    found: Table = sensitivity.measured(
        of.model, of.shelf, of.reference, formats=wanted, method=method, base=base, watch=watch
    )
    return found


def foreseen(of: Subject, formats: Sequence[str], method: Method, watch: Watch | None = None) -> Table:
    """The same from the calibration texts' curvature. Raises DistillError for a format that there is not."""
    return sensitivity.predicted(of.shelf, formats=formats_of(of, formats), method=method, watch=watch)


def formats_of(of: Subject, formats: Sequence[str]) -> tuple[str, ...]:
    """The formats that are asked for, or those of llama.cpp that the model's width suggests. Raises DistillError."""
    narrow = any(width % format_of("Q4_K").block for _, width in of.shelf.shapes.values())
    return tuple(format_of(name).name for name in formats or (sensitivity.NARROW if narrow else sensitivity.GGUF))


def mixed(of: Subject, found: Table, budget: Budget, *, repair_s: float = 0.0) -> Mixed:
    """The mixture with the smallest sum of losses; repaired by joint KL for so long at most.

    Raises DistillError where even the smallest formats take more, with what they take.
    """
    timed = timing(found) if budget.kind == "ms" else None
    cost, most, unit = costing(found, budget, timed)
    picked = allocated(found.choices(cost), most, unit=unit)
    made = repaired(of.model, of.shelf, of.reference, found, picked, budget=most, cost=cost, limit_s=repair_s)
    with swapped(of.model, of.shelf.all(made.recipe)):
        seen = of.reference.of(of.model)
    taken = [entry for entry in found.entries if made.recipe.rule(entry.name).format == entry.format]
    num_bytes = sum(entry.num_bytes for entry in taken)
    return Mixed(
        recipe=made.recipe,
        num_bytes=num_bytes,
        bits=BYTE * num_bytes / found.num_weights,
        ms=None if timed is None else sum(map(timed, taken)) / NANO,
        kl=seen.kl,
        error=seen.error,
        kl_sum=None if found.base or found.predicted else sum(entry.kl for entry in taken),
        kl_before=made.kl_before,
    )


def costing(
    found: Table, budget: Budget, timed: Callable[[Entry], int] | None
) -> tuple[Callable[[Entry], int], int, str]:
    """What an entry costs, how much there is, and in what. Raises DistillError for a budget that is none."""
    if not 0 < budget.value < float("inf"):
        raise DistillError(f"{budget.kind} is {budget.value:g}: name a budget above 0")
    if timed is not None:
        return timed, int(budget.value * NANO), "nanoseconds a token"
    share = found.num_weights / BYTE if budget.kind == "bits" else 1
    return lambda entry: entry.num_bytes, int(budget.value * share), "bytes"


def timing(found: Table) -> Callable[[Entry], int]:
    """Nanoseconds of a token's product with an entry's matrix, measured now."""
    shapes = {(entry.rows, entry.width) for entry in found.entries}
    size = sum(entry.num_bytes for entry in found.entries) // len(found.formats)
    return latency.costs(latency.measured(shapes, found.formats, footprint_bytes=size), found.names)
