"""`stepwell synth plan RECIPE`: rows, calls and the most they can cost, before anything is paid."""

from __future__ import annotations

import argparse
import json

from stepwell.cli.synth.needs import add_recipe, check_extra, root_of


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("plan", help="say what a run will make and may cost", description=__doc__)
    add_recipe(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print the plan. Raises StepwellError where the run could not begin."""
    check_extra()
    from msgspec.structs import asdict  # noqa: PLC0415 - lazy, like all commands

    from stepwell.engines.answers import Answers  # noqa: PLC0415
    from stepwell.synth import recipe as recipes  # noqa: PLC0415
    from stepwell.synth.generator import counted  # noqa: PLC0415
    from stepwell.synth.plan import plan  # noqa: PLC0415
    from stepwell.synth.run import ANSWERS  # noqa: PLC0415

    recipe = recipes.load(given.recipe)
    found = plan(recipe, counted(recipe, Answers(root_of(given) / ANSWERS)) if recipe.synth.generator else None)
    if given.json:
        totals = {"rows": found.rows, "calls": found.calls, "most_usd": found.most_usd, "spent_usd": found.spent_usd}
        print(json.dumps({**totals, "lines": [asdict(line) for line in found.lines]}))
        return 0
    from stepwell.cli.synth.told import show_plan  # noqa: PLC0415

    show_plan(found)
    return 0
