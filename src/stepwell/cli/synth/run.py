"""`stepwell synth run RECIPE`: make the rows, sift them, write their card; run again, it goes on where it stopped."""

from __future__ import annotations

import argparse
import json

from stepwell.cli.synth.needs import add_budget, add_recipe, check_extra, root_of, tools_of


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("run", help="make a data set, or go on where it stopped", description=__doc__)
    add_recipe(parser)
    add_budget(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run or go on. Raises StepwellError."""
    check_extra()
    from stepwell.campaigns.run import run as run_stages  # noqa: PLC0415 - lazy, like all commands
    from stepwell.campaigns.synth import SIFT, stages  # noqa: PLC0415
    from stepwell.cli.synth.told import progress, show_rows  # noqa: PLC0415
    from stepwell.synth import card, recipe, row, run  # noqa: PLC0415

    recipe_ = recipe.load(given.recipe)
    text = given.recipe.read_text(encoding="utf-8")
    with progress() as (watch, paid):
        tools = tools_of(given, recipe_, paid)
        folders = run_stages(stages(recipe_, tools, name=given.recipe.stem, text=text), root_of(given), watch)
    done = run.reread(folders[SIFT])
    if given.jsonl:
        row.write(given.jsonl, done.rows)
    if given.json:
        print(json.dumps({"folder": str(folders[SIFT]), **card.as_json(done)}))
    else:
        show_rows(done, folders[SIFT])
    return 0
