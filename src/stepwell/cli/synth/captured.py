"""`stepwell synth captured`: what a gateway kept of its traffic, tenant by tenant, and who answered it."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from stepwell import config as configuration
from stepwell.errors import ConfigError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("captured", help="what a gateway kept of its traffic", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, default=Path("stepwell.toml"), help="default: stepwell.toml")
    where.add_argument("--folder", type=Path, metavar="DIR", help="instead of the configuration's")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Count. Raises ConfigError, and StoreError for a file that is damaged."""
    folder = given.folder or configured(given.config)
    found = [summary(each) for each in sorted(folder.iterdir()) if each.is_dir()] if folder.is_dir() else []
    if given.json:
        print(json.dumps(found))
        return 0
    for tenant in found:
        steps = ", ".join(f"{num:,} {step}" for step, num in tenant["steps"].items())
        print(f"{tenant['tenant']}: {tenant['rows']:,} rows ({steps or 'none can be read yet'}), ", end="")
        print(f"{tenant['prompts']:,} different prompts, {tenant['bytes']:,} bytes in {tenant['folder']}")
    if not found:
        print(f"Nothing has been captured in {folder} yet.")
    return 0


def configured(path: Path) -> Path:
    """Where the gateway of a configuration keeps it. Raises ConfigError where it keeps nothing."""
    section = configuration.load(path, secrets=False).capture
    if section is None:
        raise ConfigError("nothing is captured: add [capture], or name a --folder", file=str(path))
    return Path(section.folder)


def summary(folder: Path) -> dict[str, Any]:
    """One tenant's rows."""
    from stepwell.synth.row import read  # noqa: PLC0415 - lazy, like all commands

    done = sorted(folder.glob("*.jsonl"))
    rows = [row for path in done for row in read(path)]
    return {
        "tenant": unquote(folder.name),
        "folder": str(folder),
        "rows": len(rows),
        "prompts": len({row.prompt_hash for row in rows}),
        "steps": dict(Counter(str(row.params.get("step")) for row in rows).most_common()),
        "bytes": sum(path.stat().st_size for path in done),
    }
