"""`stepwell templates kill`: tell every reader to show nothing, until something is published or rolled back."""

from __future__ import annotations

import argparse

from stepwell.cli.templates.needs import KEY_ENV, check_extra


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("kill", help="show nothing from now on", description=__doc__)
    parser.add_argument("url", help="a folder, file:///… or s3://bucket/prefix")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Kill. Raises TemplateError and StoreError."""
    check_extra()
    from stepwell.signing import signing_key  # noqa: PLC0415
    from stepwell.store.objects import opened  # noqa: PLC0415 - needs the extra
    from stepwell.templates.publish import kill  # noqa: PLC0415

    manifest = kill(opened(given.url), key=signing_key(KEY_ENV))
    print(f"killed: version {manifest.version}")
    return 0
