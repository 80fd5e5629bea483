"""`stepwell templates rollback`: put an older version's content live again, under a new version."""

from __future__ import annotations

import argparse

from stepwell.cli.templates.needs import KEY_ENV, check_extra


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("rollback", help="put an older content live again", description=__doc__)
    parser.add_argument("url", help="a folder, file:///… or s3://bucket/prefix")
    parser.add_argument("version", type=int, help="`stepwell templates status` lists them")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Roll back. Raises TemplateError and StoreError."""
    check_extra()
    from stepwell.signing import signing_key  # noqa: PLC0415
    from stepwell.store.objects import opened  # noqa: PLC0415 - needs the extra
    from stepwell.templates.publish import rollback  # noqa: PLC0415

    manifest = rollback(opened(given.url), given.version, key=signing_key(KEY_ENV))
    print(f"the content of version {given.version} is live as version {manifest.version}")
    return 0
