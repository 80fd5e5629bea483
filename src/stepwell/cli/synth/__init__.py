"""`stepwell synth`: one file a subcommand, each with `add` and `run`."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import TYPE_CHECKING

from stepwell.cli.synth import captured, card, plan, run, sift

if TYPE_CHECKING:
    from argparse import _SubParsersAction

COMMANDS: tuple[ModuleType, ...] = (plan, run, sift, card, captured)


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommands."""
    parser = commands.add_parser("synth", help="make training data with provenance", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(inner)
