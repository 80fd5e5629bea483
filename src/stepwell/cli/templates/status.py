"""`stepwell templates status`: what is live at a place, whether readers would take it, and what was before."""

from __future__ import annotations

import argparse
import os

from stepwell.cli.templates.needs import KEY_ENV, check_extra


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("status", help="what is live", description=__doc__)
    parser.add_argument("url", help="a folder, file:///… or s3://bucket/prefix")
    parser.add_argument(
        "--public-key", action="append", default=[], metavar="KEY", help="base64 or PEM; may be repeated"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print it; 1 where readers are shown nothing. Raises StoreError."""
    check_extra()
    from rich.console import Console  # noqa: PLC0415 - needs the extra
    from rich.table import Table  # noqa: PLC0415

    from stepwell.signing import signing_key, trusted  # noqa: PLC0415
    from stepwell.store.objects import opened  # noqa: PLC0415
    from stepwell.templates.published import status  # noqa: PLC0415

    own = [signing_key(KEY_ENV)] if os.environ.get(KEY_ENV) else []
    found = status(opened(given.url), trusted(given.public_key, *own))
    console = Console()
    if found.manifest:
        told = f"version {found.manifest.version} of {found.manifest.campaign}, {found.manifest.state}"
        console.print(f"{told}, {found.manifest.not_before} to {found.manifest.expires}, signature {found.signature}")
    if found.wrong:
        console.print(f"[red]{found.wrong}[/red]")
    table = Table("locale", "path", "bytes", "br", "zst", "gz", "updates")
    for each in found.bundles:
        sizes = [f"{each.forms[form]:,}" if form in each.forms else "-" for form in ("bytes", "br", "zst", "gz")]
        table.add_row(each.locale, each.path, *sizes, ", ".join(map(str, each.update.values())))
    if found.bundles:
        console.print(table)
    for old in found.past:
        state = old.manifest.state if old.manifest else old.wrong
        console.print(f"version {old.version}: {state}")
    return 0 if found.serving else 1
