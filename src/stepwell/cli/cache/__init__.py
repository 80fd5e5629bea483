"""`stepwell cache`: look into the store of answers while gateways use it. One file a subcommand."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import TYPE_CHECKING

from stepwell.cli.cache import export, get, invalidate, report_bad, stats, warm

if TYPE_CHECKING:
    from argparse import _SubParsersAction

COMMANDS: tuple[ModuleType, ...] = (stats, get, invalidate, report_bad, warm, export)


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommands."""
    parser = commands.add_parser("cache", help="look into kept answers, invalidate, warm, export", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(inner)
