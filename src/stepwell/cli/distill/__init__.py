"""`stepwell distill`: one file a subcommand, each with `add` and `run`."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import TYPE_CHECKING

from stepwell.cli.distill import gate, interact, promote, rollback, run, standing, teach, train

if TYPE_CHECKING:
    from argparse import _SubParsersAction

COMMANDS: tuple[ModuleType, ...] = (run, teach, train, interact, gate, promote, standing, rollback)


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommands."""
    parser = commands.add_parser("distill", help="train a student, gate it, promote it", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(inner)
