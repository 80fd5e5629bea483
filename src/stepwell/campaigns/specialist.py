"""A specialist, from traffic to a file that may serve: split, synth, filter, teach, train, quantize, gate, card.

Nothing of a stage is done twice, and nothing is paid twice: stages lie in folders named by all that went into them,
answers of a teacher by their questions. The gate judges the file that will serve, by a plan that was stated first.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from stepwell.campaigns import (
    specialist_card,
    specialist_gate,
    specialist_quantize,
    specialist_rows,
    specialist_teach,
    specialist_train,
)
from stepwell.campaigns.cost import Cost, measured, total
from stepwell.campaigns.run import Stage, Watch, run
from stepwell.campaigns.specialist_job import CARD, GATE, Job
from stepwell.engines import terms
from stepwell.quality.verdict import Report


class Result(Struct, frozen=True):
    """What a run came to."""

    student: Path
    """The folder that ships."""
    folders: dict[str, Path]
    report: Report | None
    cost: Cost


def stages(job: Job) -> list[Stage]:
    """The stages that the recipe asks for. Raises ConfigError, DistillError and StoreError for what is missing."""
    file = job.recipe.file
    specialist_quantize.check(job.recipe)
    found = specialist_rows.stages(job)
    if file.teacher is not None:
        terms.check(file.teacher.url, file.teacher.name, i_may=job.allowed.i_may)
        found.append(specialist_teach.stage(job, file.teacher))
    found.append(specialist_train.train(job))
    if file.quantize is not None:
        found.append(specialist_quantize.compare(job, file.quantize))
    if file.quantized is not None:
        found.append(specialist_quantize.stage(job, file.quantized))
    if file.gate is not None:
        found.append(specialist_gate.stage(job, file.gate))
    found.append(specialist_card.stage(job))
    return [replace(each, work=measured(each.work)) for each in found]


def made(job: Job, watch: Watch) -> Result:
    """Run the recipe, or go on with it."""
    job = replace(job, root=job.root.absolute())  # stages' files are named from wherever a recipe lies
    planned = stages(job)
    if job.recipe.file.gate is not None:
        specialist_gate.seal(job, job.recipe.file.gate)
    folders = run(planned, job.root, watch)
    student = specialist_card.link(job, folders[CARD])
    report = specialist_card.report(folders[GATE]) if GATE in folders else None
    return Result(student, dict(folders), report, total(folders.values()))
