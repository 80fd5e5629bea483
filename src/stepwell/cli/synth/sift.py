"""`stepwell synth filter RECIPE --rows PATH`: put any rows through the recipe's filters; each death has its reason."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stepwell.cli.synth.needs import add_budget, add_recipe, check_extra, tools_of


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("filter", help="filter rows by a recipe", description=__doc__)
    add_recipe(parser)
    add_budget(parser)
    parser.add_argument("--rows", type=Path, required=True, metavar="PATH", help=".jsonl, .parquet or a folder of them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Filter. Raises StepwellError."""
    check_extra()
    from stepwell.cli.synth.told import progress, show_rows  # noqa: PLC0415 - lazy, like all commands
    from stepwell.synth import card, recipe, row, run  # noqa: PLC0415

    recipe_ = recipe.load(given.recipe)
    with progress() as (_, paid):
        done = run.sifted(recipe_, given.rows, given.out, tools_of(given, recipe_, paid))
    card.write(done, given.out, name=given.recipe.stem, recipe=given.recipe.read_text(encoding="utf-8"))
    if given.jsonl:
        row.write(given.jsonl, done.rows)
    if given.json:
        print(json.dumps({"folder": str(given.out), **card.as_json(done)}))
    else:
        show_rows(done, given.out)
    return 0
