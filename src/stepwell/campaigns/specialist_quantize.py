"""The stages that write the file that serves and say what it lost; and what a student learns with, quantized.

Quantized after training, codes are found from the rows that were learned; quantized while learning, they are the very
ones of the last weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.campaigns import learning, quantize_phases
from stepwell.campaigns.run import Folders, Stage
from stepwell.campaigns.specialist_file import Recipe
from stepwell.campaigns.specialist_job import COMPARE, QUANTIZE, TRAIN, Job
from stepwell.errors import ConfigError, DistillError
from stepwell.quality.files import lay
from stepwell.quantize import phases
from stepwell.quantize import recipe as rules
from stepwell.quantize.formats import PLAIN
from stepwell.quantize.section import WIDE, QuantizeSection
from stepwell.toml import placed

if TYPE_CHECKING:
    from stepwell.distill.data import Example
    from stepwell.distill.student import Model
    from stepwell.quantize.grids import Coded

NUM_VERIFIED = 32
"""Rows that the engine is compared on."""
PHASES, PICTURE = "phases.json", "phases.svg"


def rules_of(recipe: Recipe) -> rules.Recipe | None:
    """Which matrix of the student gets what; None where no file is written. Raises ConfigError with its line."""
    section = recipe.file.quantized
    if section is None:
        return None
    with told(recipe):
        return section.rules_of(recipe.path(section.recipe) if section.recipe else Path())


def check(recipe: Recipe) -> None:
    """Raise ConfigError, with its line, where a format does not fit the student: before anything is trained."""
    found = rules_of(recipe)
    if found is None:
        return
    with told(recipe):
        try:
            rules.chosen(found, shapes_of(recipe))
        except DistillError as error:
            raise ConfigError(str(error), field=field(recipe)) from error


@contextmanager
def told(recipe: Recipe) -> Iterator[None]:
    """Errors with their line."""
    try:
        yield
    except ConfigError as error:
        raise placed(error, recipe.source) from error


def field(recipe: Recipe) -> str:
    """What a person would change."""
    if recipe.file.quantize is None:
        return "export.quantize"
    return "quantize.recipe" if recipe.file.quantize.recipe else "quantize.format"


def shapes_of(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The student's matrices by short name. Raises DistillError where the folder it begins with is not exported."""
    from stepwell.quantize.architectures import config_of, shapes  # noqa: PLC0415 - gguf, where it is needed

    section = recipe.file.student
    if section.folder:
        config = config_of(recipe.path(section.folder))
    else:
        config = {
            "model_type": "llama",
            "hidden_size": section.hidden,
            "intermediate_size": section.inner,
            "num_hidden_layers": section.layers,
            "num_attention_heads": section.heads,
            "num_key_value_heads": section.kv_heads or section.heads,
            "head_dim": section.hidden // section.heads,
            "vocab_size": 1,
            "tie_word_embeddings": section.tied,
        }
    return {name: shape for name, shape in shapes(config).items() if len(shape) > 1}


def learned_with(recipe: Recipe) -> learning.Quantized | None:
    """What the student learns with; None where it is quantized afterwards, or not at all. Raises ConfigError."""
    section, found = recipe.file.quantized, rules_of(recipe)
    if section is None or found is None or not section.learned:
        return None
    return learning.Quantized(found, section.first_step(recipe.file.train.steps))


def stage(job: Job, section: QuantizeSection) -> Stage:
    """`quantize` leaves `NAME.FORMAT.gguf` with its manifest; a file that the engine runs otherwise is refused."""
    found = rules_of(job.recipe)
    if found is None:
        raise ConfigError("no file is written", field="export.quantize")
    kind = found.default.format

    def work(before: Folders, out: Path) -> None:
        from stepwell.distill.student import load  # noqa: PLC0415 - torch and gguf, where they are needed
        from stepwell.quantize.export import to_gguf  # noqa: PLC0415

        student = before[TRAIN] / learning.RUN / "student"
        file = out / f"{job.recipe.name}.{kind}.gguf"
        rows = msgspec.json.decode((before[TRAIN] / learning.JOB).read_bytes(), type=learning.Job).learn
        model = load(student)
        if plain(found):
            to_gguf(student, file, kind, name=job.recipe.name)
            verify(file, model, rows, None)
            return
        codes = quantize_phases.coded(model, found, rows, learned=section.learned)
        to_gguf(student, file, kind if kind in PLAIN else WIDE[0], coded=codes, name=job.recipe.name)
        verify(file, model, rows, codes)

    given = msgspec.json.encode((found, section.learned))
    return Stage(QUANTIZE, given + b"\0" + job.recipe.name.encode(), work)


def verify(file: Path, model: Model, rows: Sequence[Example], codes: Mapping[str, Coded] | None) -> None:
    """Leave a file's manifest beside it. Raises DistillError where the engine runs it otherwise than torch."""
    from stepwell.quantize.verify import verified  # noqa: PLC0415

    texts = [(model.prompt_ids(each.prompt), model.text_ids(each.completion)) for each in rows[:NUM_VERIFIED]]
    made = verified(file, model.folder, model, texts, coded=codes)
    if not made.passed:
        raise DistillError(f"does not pass its verification: {'; '.join(made.complaints)}", file=file.name)


def plain(found: rules.Recipe) -> bool:
    """Whether one wide format is all: it needs nothing but the weights."""
    return not found.rules and found.default.format in WIDE and found.default.method == "round"


def compare(job: Job, section: QuantizeSection) -> Stage:
    """`compare` leaves `phases.json` and `phases.svg`: what the recipe's way brings, and, where it asks, the others."""
    found = rules_of(job.recipe)
    if found is None:
        raise ConfigError("no file is written", field="export.quantize")
    steps = job.recipe.file.train.steps

    def work(before: Folders, out: Path) -> None:
        told = msgspec.json.decode((before[TRAIN] / learning.JOB).read_bytes(), type=learning.Job)
        others = quantize_phases.ways(found, section, steps) if section.compare else {}
        others.pop(section.when, None)
        folders = quantize_phases.learned(
            told, others, out, processes=job.allowed.processes, watch=job.allowed.progress
        )
        known = quantize_phases.phases(told, found, {section.when: before[TRAIN], **folders}, section.when)
        lay(out / PHASES, msgspec.json.encode(known))
        if known:
            lay(out / PICTURE, phases.picture(known).encode())

    return Stage(COMPARE, msgspec.json.encode((found, section)), work, resumes=True)
