"""`stepwell distill promote`: one stage on: into the shadow, a canary, live."""

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
    parser = commands.add_parser("promote", help="one stage on: shadow, canary, live", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the promotion, with the gate's verdict")
    parser.add_argument("--to", choices=("shadow", "canary", "live"), help="default: the next stage")
    parser.add_argument("--because", default="", metavar="REASON", help="go live before audits allow it")
    parser.add_argument(
        "--public-key", action="append", default=[], metavar="KEY", help="who may sign; default: the signing key's own"
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Promote. Raises ConfigError, DistillError, NotAuthentic and StoreError."""
    check_gate()
    from stepwell.quality.promotion import Promotion  # noqa: PLC0415 - signatures
    from stepwell.signing import signing_key, trusted  # noqa: PLC0415

    keys = trusted(given.public_key) if given.public_key else trusted((), signing_key())
    show(Promotion(given.folder).promote(keys, to=given.to, because=given.because), as_json=given.json)
    return 0
