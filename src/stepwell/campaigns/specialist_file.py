"""A specialist as a person writes it: one recipe, whose sections belong to the rooms that read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from stepwell.distill.plan import DIVERGENCES, SPARSE, Plan, StudentSection, parsed
from stepwell.distill.rounds import InteractSection
from stepwell.distill.teach import TeacherSection
from stepwell.errors import ConfigError
from stepwell.quality.compare import GatePlan
from stepwell.quality.files import sha256_of
from stepwell.quantize.section import QuantizeSection, exported
from stepwell.synth import recipe as synth_recipe
from stepwell.synth.recipe import Synth
from stepwell.toml import Section, placed, typed

Share = Annotated[float, Meta(ge=0, lt=1)]
FORMAT = "Q8_0"
"""Of the file that serves, where a recipe names none."""


class SplitSection(Section, frozen=True):
    """`[split]`: what of the real rows is not learned from. Chosen by the prompt: the same prompts in every run."""

    held_out: Share = 0.2
    """For the gate; none where `synth.held_out` names rows for it."""
    dev: Share = 0.05
    """Of the rows to learn from: which weights are the best is decided on these."""
    most_dev: Annotated[int, Meta(ge=1)] = 256


class ExportSection(Section, frozen=True):
    """`[export]`: the file that will serve, and what stands on its card."""

    quantize: str | None = None
    """A format of GGUF, once the student has learned; Q8_0 where nothing is said; empty: no file."""
    licence: str = "other"
    language: str = "en"
    price: str = ""
    """The row of prices.toml that a large model's answer would cost; empty: the recipe's name."""


class File(Section, frozen=True):
    """The file."""

    name: str = ""
    """Empty: the file's own name."""
    about: str = ""
    """A sentence for the card."""
    synth: Synth | None = None
    split: SplitSection = SplitSection()
    teacher: TeacherSection | None = None
    student: StudentSection = StudentSection()
    train: Plan = Plan()
    gate: GatePlan | None = None
    quantize: QuantizeSection | None = None
    export: ExportSection = ExportSection()
    interact: InteractSection | None = None

    @property
    def quantized(self) -> QuantizeSection | None:
        """How the file that serves is quantized; None: there is none."""
        if self.quantize is not None:
            return self.quantize
        named = FORMAT if self.export.quantize is None else self.export.quantize
        return exported(named) if named else None


class Recipe(Struct, frozen=True):
    """The file, its name, and the folder that its paths start from."""

    file: File
    name: str
    source: Path
    text: str

    def path(self, name: str) -> Path:
        """A path of the recipe: from its own folder, or, where that is not there, from where one stands."""
        filled = Path(os.path.expandvars(name))
        beside = self.source.parent / filled
        return beside if beside.exists() or not filled.exists() else filled

    @property
    def needs_teacher(self) -> bool:
        """Whether training asks the weights of the teacher."""
        plan = self.file.train
        return parsed(plan.loss)[0] in {*DIVERGENCES, "seq"} or plan.on_policy > 0

    def teacher(self) -> Path:
        """The teacher's Hugging Face folder. Raises ConfigError where it is a server or a file."""
        section = self.file.teacher
        if section is None or not section.is_folder:
            what = f"the loss {self.file.train.loss!r} needs a teacher whose weights are here: name its folder"
            raise placed(ConfigError(what, field="teacher.path"), self.source)
        return self.path(section.path)

    def same_words(self) -> bool:
        """Whether student and teacher have the same tokens, as stored probabilities need it. Raises DistillError."""
        section = self.file.teacher
        told = (section.tokenizer or section.path) if section else ""
        return not told or len({sha256_of(each / "tokenizer.json") for each in (self.path(told), self.words())}) == 1

    def words(self) -> Path:
        """The folder whose tokenizer a new student takes. Raises ConfigError where none is named."""
        student, teacher = self.file.student, self.file.teacher
        if student.tokenizer or student.folder:
            return self.path(student.tokenizer or student.folder)
        if teacher is not None and teacher.is_folder:
            return self.path(teacher.path)
        what = "a new student needs a tokenizer: name a folder that has one"
        raise placed(ConfigError(what, field="student.tokenizer"), self.source)


def load(path: Path) -> Recipe:
    """Read and check a recipe. Raises ConfigError with file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error}); name a recipe", file=str(path)) from error
    try:
        file: File = typed(text, File, file=str(path))
        check(file, path.parent)
    except ConfigError as error:
        raise placed(error, path) from error
    return Recipe(file, file.name or path.stem, path, text)


def check(file: File, folder: Path) -> None:
    """What sections cannot say alone. Raises ConfigError with its field."""
    if file.synth is None and not file.train.data and file.interact is None:
        raise ConfigError("nothing to learn from: add [synth], or name rows in [train] data", field="train.data")
    if file.synth is not None:
        synth_recipe.checked(file.synth, folder)
    loss, _ = parsed(file.train.loss)
    if file.teacher is None and loss in {*DIVERGENCES, *SPARSE, "seq"}:
        raise ConfigError(f"the loss {file.train.loss!r} needs a [teacher]", field="train.loss")
    if file.teacher is not None and loss in SPARSE and file.teacher.give != "logits":
        raise ConfigError(f'the loss {file.train.loss!r} needs give = "logits"', field="teacher.give")
    check_quantize(file)


def check_quantize(file: File) -> None:
    """Raise ConfigError where the sections say different things about the file that serves."""
    if file.quantize is not None and file.export.quantize is not None:
        raise ConfigError("[quantize] says it: take this out, or that", field="export.quantize")
    found = file.quantized
    if found is not None and found.learned and file.student.lora:
        what = 'adapters learn beside weights that stay: take when = "after", or lora = 0'
        raise ConfigError(what, field="quantize.when")
