"""`stepwell quantize`: one file a subcommand, each with `add` and `run`."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import TYPE_CHECKING

from stepwell.cli.quantize import apply, compare, elsewhere, search, sensitivity, verify

if TYPE_CHECKING:
    from argparse import _SubParsersAction

COMMANDS: tuple[ModuleType, ...] = (search, apply, sensitivity, compare, verify, elsewhere)


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommands."""
    parser = commands.add_parser("quantize", help="the smallest model that keeps its quality", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(inner)
