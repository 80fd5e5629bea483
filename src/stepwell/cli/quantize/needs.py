"""What the subcommands share: the packages they need, numbers, recipes by name, and a bar."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.errors import ConfigError, DistillError

if TYPE_CHECKING:
    from stepwell.quantize.recipe import Method, Recipe
    from stepwell.quantize.sensitivity import Watch

NEEDED = {
    "torch": "train",
    "safetensors": "train",
    "tokenizers": "train",
    "jinja2": "train",
    "numpy": "train",
    "gguf": "train",
    "rich": "train",
    "polars": "synth",
    "xllamacpp": "embedded",
}


def check() -> None:
    """Raise ConfigError where a package is not installed, with what installs it."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        extras = ",".join(sorted({NEEDED[name] for name in lacking}))
        raise ConfigError(f"needs {', '.join(lacking)}: pip install torch==2.13.0 'stepwell[{extras}]'")


def count(told: str) -> int:
    """A number from 1 on, as an argument. Raises ArgumentTypeError."""
    return at_least(1, told)


def seed(told: str) -> int:
    """A number from 0 on, as an argument. Raises ArgumentTypeError."""
    return at_least(0, told)


def at_least(least: int, told: str) -> int:
    """A whole number from `least` on. Raises ArgumentTypeError."""
    if not told.isdecimal() or int(told) < least:
        raise argparse.ArgumentTypeError(f"{told!r} is no whole number from {least} on")
    return int(told)


def recipe_of(told: str, method: Method) -> Recipe:
    """A recipe.json, or one format for all by a method. Raises DistillError."""
    from stepwell.quantize import recipe  # noqa: PLC0415 - lazy, like all commands
    from stepwell.quantize.formats import FORMATS, PLAIN  # noqa: PLC0415

    if told in PLAIN or (told in FORMATS and FORMATS[told].engine == "gguf"):
        return recipe.uniform(told, method)
    if told in FORMATS:  # compressed-tensors has codes for layers only
        ends = tuple(recipe.Rule("F16", match=name) for name in ("embed_tokens.weight", "lm_head.weight"))
        return recipe.Recipe(recipe.Rule(told, method), ends)
    if not Path(told).is_file():
        raise DistillError(f"{told!r} is neither a file nor a format: {', '.join([*FORMATS, *PLAIN])}")
    return recipe.read(Path(told))


@contextmanager
def bar(what: str, *, quiet: bool) -> Iterator[Watch]:
    """A line on the terminal: how many are done, of how many, and what was last."""
    from rich.console import Console  # noqa: PLC0415 - lazy, like all commands
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    told = TextColumn("{task.fields[told]}")
    with Progress(*columns, told, console=Console(stderr=True), disable=quiet, transient=True) as shown:
        line = shown.add_task(what, total=None, told="")
        yield lambda done, num, last: shown.update(line, completed=done, total=num, told=last)
