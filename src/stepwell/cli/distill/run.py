"""`stepwell distill run RECIPE`: from traffic to a gated student; killed anywhere, it goes on where it was."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from stepwell.campaigns.specialist_file import File

TRAIN = ("torch", "safetensors", "tokenizers", "jinja2", "numpy", "polars", "rich", "cryptography", "zstandard")
MOST_PROCESSES = 4
NOT_PROMOTED = 1


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("run", help="make a gated student of a recipe, or go on", description=__doc__)
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe (TOML), such as recipes/*.toml")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where stages are kept (default: runs/NAME)")
    parser.add_argument("--budget-usd", type=float, metavar="USD", help="what teachers may cost, all runs together")
    parser.add_argument("--max-calls", type=int, metavar="N", help="how often they may be asked, all runs together")
    parser.add_argument("--i-may", action="store_true", help="use a teacher whose terms restrict training")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help=f"that train side by side (default: one a core, at most {MOST_PROCESSES})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, and no progress")
    parser.add_argument("--lines", action="store_true", help="with --json: a JSON object a stage and a step, too")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run or go on; 1 where the gate does not say that the student may serve. Raises StepwellError."""
    from stepwell.campaigns.specialist_file import load  # noqa: PLC0415 - lazy, like all commands

    logging.getLogger("gguf").setLevel(logging.WARNING)
    recipe = load(given.recipe)
    check(recipe.file)
    from stepwell.campaigns.specialist import made  # noqa: PLC0415
    from stepwell.campaigns.specialist_job import Allowed, Job  # noqa: PLC0415
    from stepwell.cli.distill.spoken import spoken  # noqa: PLC0415
    from stepwell.cli.distill.told import as_json, progress, show  # noqa: PLC0415
    from stepwell.engines.answers import Budget  # noqa: PLC0415

    with spoken() if given.lines else progress(quiet=given.json) as (watch, tell):
        allowed = Allowed(
            budget=Budget(given.budget_usd, given.max_calls),
            i_may=given.i_may,
            processes=given.processes or min(MOST_PROCESSES, os.cpu_count() or 1),
            progress=tell,
        )
        result = made(Job(recipe, given.root or Path("runs") / recipe.name, allowed), watch)
    if given.json:
        print(as_json(result))
    else:
        show(result)
    return 0 if result.report is None or result.report.decision == "promote" else NOT_PROMOTED


def check(file: File) -> None:
    """Raise ConfigError where something that the recipe needs is not installed or not set: before the work."""
    needed = [*TRAIN, *(["gguf"] if file.quantized else []), *(["xllamacpp"] if file.gate else [])]
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if lacking:
        what = "stepwell[embedded,synth,train]"
        raise ConfigError(f"needs {', '.join(lacking)}: pip install torch==2.13.0, then '{what}'")
    if file.gate is not None:
        from stepwell.signing import signing_key  # noqa: PLC0415

        signing_key()
