"""`stepwell templates publish`: put compiled bundles live at a folder or an S3-compatible store."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

from stepwell.cli.templates.needs import KEY_ENV, check_extra
from stepwell.errors import TemplateError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("publish", help="put bundles live", description=__doc__)
    parser.add_argument("url", help="a folder, file:///… or s3://bucket/prefix")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="LOCALE.json", help="one compiled bundle a locale")
    parser.add_argument("--campaign", default="", help="default: the name in the bundles")
    parser.add_argument("--expires-days", type=float, default=30.0, metavar="DAYS")
    parser.add_argument("--not-before", type=datetime.fromisoformat, metavar="TIME", help="ISO 8601 with its zone")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Publish. Raises TemplateError and StoreError."""
    check_extra()
    from stepwell.signing import signing_key  # noqa: PLC0415
    from stepwell.store.objects import opened  # noqa: PLC0415 - needs the extra
    from stepwell.templates.fill import load  # noqa: PLC0415
    from stepwell.templates.publish import Terms, publish  # noqa: PLC0415

    bundles = {file.stem: bytes_of(file) for file in given.bundles}
    names = {load(data).campaign for data in bundles.values()}
    if len(names) > 1:
        raise TemplateError(f"bundles of {len(names)} campaigns: {', '.join(sorted(names))}; publish each to its place")
    terms = Terms(given.not_before, given.expires_days)
    name = given.campaign or names.pop()
    manifest = publish(opened(given.url), bundles, campaign=name, key=signing_key(KEY_ENV), terms=terms)
    print(f"version {manifest.version} of {manifest.campaign} is live until {manifest.expires}")
    return 0


def bytes_of(file: Path) -> bytes:
    """A file's bytes. Raises TemplateError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise TemplateError(f"cannot be read: {error.strerror}", file=str(file)) from error
