"""`stepwell cache export`: every known question with its answer, as JSON lines or Parquet, for anybody's tools."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell import config as configuration
from stepwell.cli.cache.opened import Kept, Opened, add_config, answer_named, opened, wordings
from stepwell.config import Config
from stepwell.engines.texts import answered_text
from stepwell.errors import ConfigError, StoreError
from stepwell.index.rows import KeyAdded

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("export", help="questions and answers as JSONL or Parquet", description=__doc__)
    parser.add_argument("out", type=Path, metavar="FILE.jsonl|FILE.parquet|-", help="- is standard output, JSONL")
    parser.add_argument("--all", action="store_true", help="what is stale or invalidated, too")
    add_config(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Write them. Raises ConfigError and StoreError."""
    parquet = given.out.suffix == ".parquet"
    if parquet and importlib.util.find_spec("polars") is None:
        raise ConfigError("Parquet needs polars: pip install 'stepwell[templates]', or export to a .jsonl file")
    config = configuration.load(given.config, secrets=False)
    rows = asyncio.run(exported(config, everything=given.all))
    if str(given.out) == "-":
        sys.stdout.writelines(line.decode() for line in lines(rows))
        return 0
    try:
        part = given.out.with_name(given.out.name + ".part")
        write_parquet(part, rows) if parquet else part.write_bytes(b"".join(lines(rows)))
        part.replace(given.out)
    except OSError as error:
        raise StoreError(f"{given.out} cannot be written ({error.strerror}); choose another file") from error
    print(f"{len(rows):,} questions with their answers in {given.out}", file=sys.stderr)
    return 0


async def exported(config: Config, *, everything: bool) -> list[dict[str, Any]]:
    """One row a question."""
    async with opened(config) as at:
        return [row async for row in questions(at) if everything or row["state"] == "fresh"]


async def questions(at: Opened) -> AsyncIterator[dict[str, Any]]:
    """The questions that the log of keys names, each with its answer."""
    for name, keys in (await wordings(at.store)).items():
        kept = await answer_named(at, name)
        if kept is not None:
            for key in keys:
                yield flat(key, kept)


def flat(key: KeyAdded, kept: Kept) -> dict[str, Any]:
    """One row: names, texts, numbers and times that need no explanation."""
    row = kept.row
    return {
        "question": key.text,
        "answer": answered_text(row.body, row.form, "chat") or answered_text(row.body, row.form, "completion"),
        "state": kept.state,
        "made_at": moment(row.made_s),
        "stale_at": moment(row.stale_s),
        "expires_at": moment(kept.expires_s),
        "engine": row.engine,
        "input_tokens": row.usage.input_tokens if row.usage else None,
        "output_tokens": row.usage.output_tokens if row.usage else None,
        "saved_usd": row.saved_usd,
        "tags": ",".join(row.tags),
        "answer_name": kept.name,
        "question_digest": key.exact.hex(),
        "partition": key.partition.hex(),
        "principal": key.principal.hex(),
        "embedder": key.embedder,
        "body": row.body.decode("utf-8", "replace"),
    }


def moment(seconds: float) -> str:
    """A time in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def lines(rows: list[dict[str, Any]]) -> list[bytes]:
    """JSON lines."""
    return [msgspec.json.encode(row) + b"\n" for row in rows]


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    """The same as a table; no rows are a table without any."""
    import polars as pl  # noqa: PLC0415 - an extra

    schema = dict.fromkeys(COLUMNS, pl.String) | {
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "saved_usd": pl.Float64,
    }
    pl.DataFrame(rows, schema=schema).write_parquet(file)


COLUMNS = [
    "question",
    "answer",
    "state",
    "made_at",
    "stale_at",
    "expires_at",
    "engine",
    "input_tokens",
    "output_tokens",
    "saved_usd",
    "tags",
    "answer_name",
    "question_digest",
    "partition",
    "principal",
    "embedder",
    "body",
]
