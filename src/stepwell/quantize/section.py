"""`[quantize]` of a recipe: the formats of the file that serves, and when in its training a student meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from stepwell.errors import ConfigError, DistillError
from stepwell.quantize import recipe
from stepwell.quantize.formats import FORMATS, PLAIN
from stepwell.quantize.recipe import Method, Recipe, Rule
from stepwell.toml import Section

When = Literal["after", "late", "start"]
"""after: when it has learned, in seconds. late: in the last share of its steps. start: from its first step on."""
Share = Annotated[float, Meta(gt=0, lt=1)]
WIDE = ("Q8_0", *PLAIN)
"""So many bits that rounding to nearest loses nothing."""


class QuantizeSection(Section, frozen=True):
    """`[quantize]`."""

    format: str = ""
    """Of every matrix that no rule names."""
    rules: tuple[Rule, ...] = ()
    """`[[quantize.rules]]`: `match`, `format`, `method`; the first that matches counts."""
    recipe: str = ""
    """A recipe.json, as a search writes it, in place of format and rules."""
    when: When = "after"
    late_share: Share = 0.2
    """The share of the steps that are quantized, where `when` is late."""
    method: Method = "gptq"
    """How codes are found, where `when` is after."""
    compare: bool = False
    """Train the other ways, too, as many steps each: the card then shows what each brings."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if bool(self.format) == bool(self.recipe):
            raise ConfigError("name a format, or a recipe.json: one of them", field="quantize")
        if self.recipe and self.rules:
            raise ConfigError("rules stand in the recipe.json, or here: not in both", field="quantize.rules")
        for at, name in enumerate((self.format, *(each.format for each in self.rules))):
            if name:
                known(name, f"quantize.rules.{at - 1}.format" if at else "quantize.format")

    @property
    def learned(self) -> bool:
        """Whether the student learns with it."""
        return self.when != "after"

    def first_step(self, steps: int) -> int:
        """The first step that is quantized, of so many."""
        return round(steps * (1 - self.late_share)) if self.when == "late" else 0

    def rules_of(self, file: Path) -> Recipe:
        """Which matrix gets what; `file` is the recipe.json, where one is named. Raises ConfigError."""
        if not self.recipe:
            return Recipe(Rule(self.format, self.method), self.rules)
        try:
            read = recipe.read(file)
        except DistillError as error:
            raise ConfigError(str(error), field="quantize.recipe") from error
        for rule in (read.default, *read.rules):
            known(rule.format, "quantize.recipe")
        return read


def known(name: str, field: str) -> None:
    """Raise ConfigError where GGUF has no such format."""
    names = [*PLAIN, *(each.name for each in FORMATS.values() if each.engine == "gguf")]
    if name not in names:
        raise ConfigError(f"no format {name!r} of GGUF; known: {', '.join(names)}", field=field)


def exported(format_: str) -> QuantizeSection:
    """`[export] quantize` alone: once the student has learned, by GPTQ where bits are few. Raises ConfigError."""
    known(format_, "export.quantize")
    return QuantizeSection(format=format_, method="round" if format_ in WIDE else "gptq")
