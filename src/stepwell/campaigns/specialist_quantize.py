"""The stage that writes the file that serves; and what a student that learns quantized is computed with.

Quantized after training, codes are found from the rows that were learned; quantized while learning, they are the very
ones of the last weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgspec

from stepwell.campaigns import learning
from stepwell.campaigns.run import Folders, Stage
from stepwell.campaigns.specialist_file import Recipe
from stepwell.campaigns.specialist_job import QUANTIZE, TRAIN, Job
from stepwell.distill.data import Example
from stepwell.errors import ConfigError, DistillError
from stepwell.quantize import recipe as rules
from stepwell.quantize.formats import PLAIN
from stepwell.quantize.section import WIDE, QuantizeSection
from stepwell.toml import placed

if TYPE_CHECKING:
    from stepwell.distill.student import Model
    from stepwell.quantize.calibrate import Tokens
    from stepwell.quantize.grids import Coded

NUM_CALIBRATION = 512
"""Rows that codes are found from."""


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
    """`quantize` leaves `NAME.FORMAT.gguf`."""
    found = rules_of(job.recipe)
    if found is None:
        raise ConfigError("no file is written", field="export.quantize")
    kind = found.default.format

    def work(before: Folders, out: Path) -> None:
        from stepwell.quantize.export import to_gguf  # noqa: PLC0415 - numpy and gguf, where they are needed

        student = before[TRAIN] / learning.RUN / "student"
        file = out / f"{job.recipe.name}.{kind}.gguf"
        if plain(found):
            to_gguf(student, file, kind, name=job.recipe.name)
            return
        codes = coded(student, found, before[TRAIN], learned=section.learned)
        to_gguf(student, file, kind if kind in PLAIN else WIDE[0], coded=codes, name=job.recipe.name)

    given = msgspec.json.encode((found, section.learned))
    return Stage(QUANTIZE, given + b"\0" + job.recipe.name.encode(), work)


def plain(found: rules.Recipe) -> bool:
    """Whether one wide format is all: it needs nothing but the weights."""
    return not found.rules and found.default.format in WIDE and found.default.method == "round"


def coded(student: Path, found: rules.Recipe, train: Path, *, learned: bool) -> Mapping[str, Coded]:
    """The student's codes: those that it learned with, or the best for the rows that it learned."""
    from stepwell.distill.student import load  # noqa: PLC0415 - torch, where it is needed
    from stepwell.quantize.apply import applied  # noqa: PLC0415
    from stepwell.quantize.fake import coded as codes  # noqa: PLC0415

    model = load(student)
    if learned:
        made: dict[str, Coded] = codes(model, found)
    else:
        rows = msgspec.json.decode((train / learning.JOB).read_bytes(), type=learning.Job).learn
        made = applied(model, found, calibration(model, rows))
    return made


def calibration(model: Model, rows: Sequence[Example]) -> list[Tokens]:
    """Some of the rows, as methods read them."""
    from stepwell.quantize.calibrate import laid  # noqa: PLC0415

    some = Random(0).sample(list(rows), min(NUM_CALIBRATION, len(rows)))  # noqa: S311 - no secret
    texts = [(model.prompt_ids(each.prompt), model.text_ids(each.completion)) for each in some]
    return laid(texts, pad=model.words.pad)
