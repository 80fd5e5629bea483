"""`stepwell templates key`: a fresh key to sign manifests with, or the public half of the one there is."""

from __future__ import annotations

import argparse
from base64 import b64encode

from stepwell.cli.templates.needs import KEY_ENV, check_extra


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("key", help="make a signing key, or show the public one", description=__doc__)
    parser.add_argument("--public", action="store_true", help=f"the public half of the key in {KEY_ENV}")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print the key in base64. Raises ConfigError."""
    check_extra()
    from stepwell.signing import new_key, signing_key  # noqa: PLC0415 - needs the extra

    public = given.public
    data = signing_key(KEY_ENV).public.public_bytes_raw() if public else new_key().private.private_bytes_raw()
    print(b64encode(data).decode())
    return 0
