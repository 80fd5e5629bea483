"""The same student with its format met after, late in, and throughout training: as many steps each, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from time import process_time
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from stepwell.campaigns import learning
from stepwell.campaigns.learning import Job, Quantized, Told, Watch
from stepwell.campaigns.quantize_job import NUM_CALIBRATION
from stepwell.distill.data import Example
from stepwell.quantize.phases import Phase
from stepwell.quantize.recipe import Recipe, Rule
from stepwell.quantize.section import QuantizeSection

if TYPE_CHECKING:
    from stepwell.distill.student import Model
    from stepwell.quantize.calibrate import Tokens
    from stepwell.quantize.grids import Coded

AFTER, TRAINED = "after", ("after", "late", "start")
STUDENT = Path(learning.RUN, "student")


def learned(
    job: Job, ways: Mapping[str, Quantized | None], out: Path, *, processes: int, watch: Watch
) -> dict[str, Path]:
    """Train each of the ways in a folder of its own, and say where; what is done already is not done again."""
    folders = {}
    for way, quantized in ways.items():
        folders[way] = out / way
        folders[way].mkdir(parents=True, exist_ok=True)
        if not (folders[way] / learning.TOLD).is_file():
            learning.learned(replace(job, quantized=quantized), folders[way], processes, watch)
    return folders


def ways(found: Recipe, section: QuantizeSection, steps: int) -> dict[str, Quantized | None]:
    """What each way of training is told."""
    late = replace(section, when="late").first_step(steps)
    return {AFTER: None, "late": Quantized(found, late), "start": Quantized(found, 0)}


def phases(job: Job, found: Recipe, folders: Mapping[str, Path], own: str = "") -> list[Phase]:
    """What came of the ways that were trained: the loss on the dev rows, with the numbers that a file would hold.

    Nothing is told where there are no dev rows.
    """
    if not job.dev:
        return []
    return [each for way in TRAINED if way in folders for each in measured(job, found, folders[way], way, own)]


def measured(job: Job, found: Recipe, folder: Path, way: str, own: str) -> Iterator[Phase]:
    """One way that was trained; without quantization it is also measured as it is, and rounded to nearest."""
    from stepwell.distill.student import load  # noqa: PLC0415 - torch, where it is needed

    model = load(folder / STUDENT)
    told = msgspec.json.decode((folder / learning.TOLD).read_bytes(), type=Told)
    if way == AFTER:
        yield Phase("none", loss_of(model, {}, job.dev), told.cpu_s)
        codes, cpu_s = timed(model, rounding(found), job.learn, learned=False)
        yield Phase("round", loss_of(model, codes, job.dev), told.cpu_s + cpu_s)
    codes, cpu_s = timed(model, found, job.learn, learned=way != AFTER)
    yield Phase(way, loss_of(model, codes, job.dev), told.cpu_s + cpu_s, own=way == own)


def rounding(found: Recipe) -> Recipe:
    """The same formats, rounded to nearest."""
    rules = tuple(Rule(each.format, "round", each.match) for each in found.rules)
    return Recipe(Rule(found.default.format, "round"), rules)


def timed(model: Model, found: Recipe, rows: Sequence[Example], *, learned: bool) -> tuple[Mapping[str, Coded], float]:
    """Codes, and the CPU seconds that finding them took."""
    begun_s = process_time()
    return coded(model, found, rows, learned=learned), process_time() - begun_s


def coded(model: Model, found: Recipe, rows: Sequence[Example], *, learned: bool) -> Mapping[str, Coded]:
    """A student's codes: those that it learned with, or the best for the rows that it learned."""
    from stepwell.quantize.apply import applied  # noqa: PLC0415
    from stepwell.quantize.fake import coded as codes  # noqa: PLC0415

    made: dict[str, Coded] = codes(model, found) if learned else applied(model, found, calibration(model, rows))
    return made


def calibration(model: Model, rows: Sequence[Example]) -> list[Tokens]:
    """Some of the rows, as methods read them."""
    from stepwell.quantize.calibrate import laid  # noqa: PLC0415

    some = Random(0).sample(list(rows), min(NUM_CALIBRATION, len(rows)))  # noqa: S311 - no secret
    texts = [(model.prompt_ids(each.prompt), model.text_ids(each.completion)) for each in some]
    made: list[Tokens] = laid(texts, pad=model.words.pad)
    return made


def loss_of(model: Model, codes: Mapping[str, Coded], rows: Sequence[Example]) -> float:
    """Mean loss a token with these codes in place of the weights."""
    from stepwell.distill.measure import mean_loss  # noqa: PLC0415
    from stepwell.quantize.network import swapped  # noqa: PLC0415

    with swapped(model, {name: each.decoded() for name, each in codes.items()}):
        loss: float = mean_loss(model, rows)
    return loss
