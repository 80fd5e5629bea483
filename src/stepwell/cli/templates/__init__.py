"""`stepwell templates`: one file a subcommand, each with `add` and `run`."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import TYPE_CHECKING

from stepwell.cli.templates import check, coverage, edge_config, fill, key, kill, publish, review, rollback, status

if TYPE_CHECKING:
    from argparse import _SubParsersAction

COMMANDS: tuple[ModuleType, ...] = (check, review, fill, key, publish, status, rollback, kill, edge_config, coverage)


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommands."""
    parser = commands.add_parser("templates", help="write, check, publish and fill templates", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(inner)
