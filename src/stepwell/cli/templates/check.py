"""`stepwell templates check`: try messages against a schema, every value of every blank."""

from __future__ import annotations

import argparse
from pathlib import Path

from stepwell.cli.templates.needs import check_extra
from stepwell.errors import TemplateError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("check", help="check messages against a schema", description=__doc__)
    parser.add_argument("schema", type=Path, help="a TOML file with a schema (a campaign.toml)")
    parser.add_argument("messages", type=Path, nargs="+", help="files with one MessageFormat 2 message each")
    parser.add_argument("--name", default="", help="the structure (area+food+name) or name of the template")
    parser.add_argument("--locale", default="", help="default: the schema's first")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print a verdict a file; 1 where one is refused. Raises TemplateError."""
    check_extra()
    from stepwell.templates.check import check  # noqa: PLC0415 - needs the extra
    from stepwell.templates.schema_file import load  # noqa: PLC0415

    schema = load(given.schema)
    sources = [text_of(file) for file in given.messages]
    verdicts = check(schema, given.locale or schema.locales[0], given.name or "template", sources)
    for file, verdict in zip(given.messages, verdicts, strict=True):
        print(f"{file}: " + ("kept" if verdict.kept else f"refused ({verdict.gate}): {verdict.reason}"))
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def text_of(file: Path) -> str:
    """A file's text. Raises TemplateError."""
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"cannot be read: {error}", file=str(file)) from error
