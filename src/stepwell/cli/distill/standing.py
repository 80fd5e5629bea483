"""`stepwell distill standing`: where a specialist stands, and what audits said of it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.distill.needs import check_gate

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.quality.promotion import Standing


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("standing", help="where a specialist stands, and why", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the promotion")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Show. Raises StoreError."""
    check_gate()
    from stepwell.quality.promotion import Promotion  # noqa: PLC0415 - signatures

    show(Promotion(given.folder).standing(), as_json=given.json)
    return 0


def show(now: Standing, *, as_json: bool) -> None:
    """Print a standing."""
    from stepwell.quality.promotion import told  # noqa: PLC0415 - signatures

    if as_json:
        print(msgspec.json.encode(now).decode())
        return
    if not now.stage:
        print("nothing was promoted here")
        return
    since = datetime.fromtimestamp(now.at_s, UTC).isoformat(timespec="seconds")
    print(f"{now.stage} since {since}: {now.reason}")
    print(f"audits: {told(now)}")
