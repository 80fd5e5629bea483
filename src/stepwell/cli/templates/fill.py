"""`stepwell templates fill`: fill a template for an audience of any size, in bounded memory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from stepwell.cli.templates.needs import KEY_ENV, check_extra
from stepwell.cli.templates.publish import bytes_of
from stepwell.errors import TemplateError
from stepwell.templates.escape import SINKS


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("fill", help="fill a template for an audience", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, metavar="LOCALE.json", help="a compiled bundle")
    source.add_argument("--site", metavar="URL", help="what is live there: a folder, file:///… or s3://bucket/prefix")
    parser.add_argument("--locale", default="en", help="of --site (default: en)")
    parser.add_argument("--public-key", action="append", default=[], metavar="KEY", help="who may sign --site")
    parser.add_argument("--audience", type=Path, required=True, metavar="FILE", help=".parquet, .csv or .jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".parquet or .jsonl")
    parser.add_argument("--template", default="", help="default: for each row the one that says what the row says")
    parser.add_argument("--sink", choices=SINKS, default="plain", help="where the texts go")
    parser.add_argument("--reader", default="reader", metavar="COLUMN", help="who a row is for")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="check the rows against this schema first")
    parser.add_argument("--skip-bad", type=Path, metavar="FILE", help="leave wrong rows out, into this file (JSONL)")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Fill. Raises TemplateError."""
    check_extra()
    from rich.console import Console  # noqa: PLC0415 - needs the extra
    from rich.progress import Progress  # noqa: PLC0415

    from stepwell.templates.audience import Wanted, run  # noqa: PLC0415

    wanted = Wanted(bundle_of(given), given.template, given.sink, given.reader)
    audience = good_rows(given) if given.schema else given.audience
    try:
        with Progress(console=Console(stderr=True)) as bar:
            line = bar.add_task("filling", total=None)
            counts = run(audience, given.out, wanted, lambda num: bar.advance(line, num))
    finally:
        if audience is not given.audience:
            audience.unlink(missing_ok=True)
    print(f"{counts.filled:,} texts for {counts.rows:,} readers: {given.out}")
    return 0


def bundle_of(given: argparse.Namespace) -> bytes:
    """The bundle that is named, or the one that is live. Raises TemplateError and StoreError."""
    if given.bundle:
        return bytes_of(given.bundle)
    from stepwell.signing import signing_key, trusted  # noqa: PLC0415
    from stepwell.store.objects import opened  # noqa: PLC0415 - needs the extra
    from stepwell.templates.published import read  # noqa: PLC0415

    own = [signing_key(KEY_ENV)] if os.environ.get(KEY_ENV) else []
    manifest, bundles = read(opened(given.site), trusted(given.public_key, *own))
    if manifest.state != "live" or given.locale not in bundles:
        raise TemplateError(f"{manifest.state}; locales: {', '.join(bundles)}", file=given.site)
    return bundles[given.locale]


def good_rows(given: argparse.Namespace) -> Path:
    """The audience, or a table of its right rows. Raises TemplateError at a wrong row without --skip-bad."""
    import msgspec  # noqa: PLC0415

    from stepwell.templates.rows import good  # noqa: PLC0415
    from stepwell.templates.schema_file import load  # noqa: PLC0415

    right: Path = given.out.with_name(f".{given.out.name}.rows.jsonl")
    with right.open("wb") as file:
        for values in good(given.audience, load(given.schema), skip_bad=given.skip_bad):
            file.write(msgspec.json.encode(values) + b"\n")
    return right
