"""`stepwell synth card RECIPE`: write the card of the rows that the recipe made, into a folder of your choice."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stepwell.cli.synth.needs import add_recipe, check_extra, root_of
from stepwell.errors import StoreError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("card", help="write a data set's card", description=__doc__)
    add_recipe(parser)
    parser.add_argument("--rows", type=Path, metavar="DIR", help="what `run` or `filter` wrote (default: the last run)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: beside the rows)")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Write the card. Raises StepwellError."""
    check_extra()
    from stepwell.synth import card, recipe, run  # noqa: PLC0415 - lazy, like all commands

    recipe.load(given.recipe)
    folder = given.rows or last(root_of(given))
    done = run.reread(folder)
    text = given.recipe.read_text(encoding="utf-8")
    written = card.write(done, given.out or folder, name=given.recipe.stem, recipe=text)
    print(json.dumps(card.as_json(done)) if given.json else written)
    return 0


def last(root: Path) -> Path:
    """The newest sifted rows. Raises StoreError."""
    folders = sorted(root.glob("*-sift-*"), key=lambda folder: folder.stat().st_mtime)
    if not folders:
        raise StoreError(f"{root} holds no rows: run `stepwell synth run` first, or name them with --rows")
    return folders[-1]
