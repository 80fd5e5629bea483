"""Which weight gets which format, and how its codes are found: one JSON file, `recipe.json`, that can be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from stepwell.errors import DistillError
from stepwell.quality.files import lay
from stepwell.quantize.formats import FORMATS, PLAIN, check, format_of

Method = Literal["round", "clip", "scale", "gptq", "qat"]
"""round: to nearest. clip: of narrower steps the best, inputs weighing. scale: rows of inputs scaled first (AWQ).
gptq: errors made good by the weights that follow (GPTQ). qat: to nearest, on weights that were trained for it."""


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """What the weights of a name get. `match` is a pattern of short names, as in a shell: `layers.0.*`."""

    format: str
    method: Method = "gptq"
    match: str = "*"


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """The first rule that matches counts; the default is for the rest."""

    default: Rule
    rules: tuple[Rule, ...] = ()

    def rule(self, name: str) -> Rule:
        """The rule of a weight, by its short name."""
        return next((each for each in self.rules if fnmatchcase(name, each.match)), self.default)


def uniform(format_: str, method: Method = "gptq") -> Recipe:
    """One format for all."""
    return Recipe(Rule(format_, method))


def chosen(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Rule]:
    """The rule of every matrix. Raises DistillError for an unknown format, or one that does not fit a width."""
    found = {name: recipe.rule(name) for name in shapes}
    for name, rule in found.items():
        if rule.format not in PLAIN:
            check(format_of(rule.format), name, shapes[name][-1])
    return found


def num_bytes(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes that the matrices take in the file."""
    rules = chosen(recipe, shapes)
    return sum(round(rows * width * bits(rules[name].format, width) / 8) for name, (rows, width) in shapes.items())


def bits(format_: str, width: int) -> float:
    """Bits a weight takes."""
    return PLAIN[format_] if format_ in PLAIN else FORMATS[format_].bits(width)


def read(path: Path) -> Recipe:
    """A recipe.json. Raises DistillError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise DistillError(f"is no recipe ({error})", file=str(path)) from error


def write(path: Path, recipe: Recipe) -> None:
    """Write a recipe.json, whole or not at all."""
    lay(path, msgspec.json.format(msgspec.json.encode(recipe), indent=2) + b"\n")
