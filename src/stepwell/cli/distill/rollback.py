"""`stepwell distill rollback`: serve a specialist no more, in every process, within a second."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.cli.distill.needs import check_gate
from stepwell.cli.distill.standing import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("rollback", help="serve a specialist no more", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the promotion")
    parser.add_argument("--because", required=True, metavar="REASON")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Roll back. Raises DistillError and StoreError."""
    check_gate()
    from stepwell.quality.promotion import Promotion  # noqa: PLC0415 - signatures

    show(Promotion(given.folder).roll_back(given.because), as_json=given.json)
    return 0
