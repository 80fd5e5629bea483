"""`stepwell cache stats`: what is kept, what was invalidated, what audits found, and what the cache saved."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell import config as configuration
from stepwell.cache.rows import EVENTS, LABELS, Event
from stepwell.cli.cache.opened import Opened, add_config, answer_named, opened, rows_of, wordings
from stepwell.cli.cache.told import show
from stepwell.cli.ledger import since
from stepwell.config import Config
from stepwell.errors import StoreError
from stepwell.ledger.rollup import rollup
from stepwell.types import Label

if TYPE_CHECKING:
    from argparse import _SubParsersAction

NO_LOG = "not known: only [semantic] keeps a log of questions"


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("stats", help="what is kept and what it saved", description=__doc__)
    parser.add_argument("--since", type=since, default=0.0, help="of the ledger: a date or a span (90m, 24h, 7d)")
    add_config(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print it. Raises StoreError."""
    config = configuration.load(given.config, secrets=False)
    show(asyncio.run(counted(given, config)), as_json=given.json)
    return 0


async def counted(given: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Everything there is to count."""
    path = config.cache.path
    async with opened(config) as at:
        kept = await answers(at)
        tags = Counter([each.tag async for each in rows_of(at.store, EVENTS, msgspec.msgpack.Decoder(Event))])
        labels = [each async for each in rows_of(at.store, LABELS, msgspec.msgpack.Decoder(Label))]
        told: dict[str, Any] = {"store": at.store.name, "where": config.cache.url or path}
    if not config.cache.url:
        told["file_bytes"] = sum(file.stat().st_size for file in Path(path).parent.glob(f"{Path(path).name}*"))
    told |= kept if config.semantic or kept["wordings"] else {"answers": NO_LOG}
    told["invalidated"] = dict(tags.most_common(10))
    told["labels"] = dict(Counter("right" if each.right else "wrong" for each in labels))
    return told | saved(config, given.since)


async def answers(at: Opened) -> dict[str, Any]:
    """The answers that the log of keys names."""
    texts = await wordings(at.store)
    found = [await answer_named(at, name) for name in texts]
    kept = [each for each in found if each is not None]
    return {
        "wordings": sum(map(len, texts.values())),
        "answers": len(kept),
        "states": dict(Counter(each.state for each in kept)),
        "partitions": len({each.row.partition for each in kept}),
        "answer_bytes": sum(len(each.row.body) for each in kept),
        "usd_saved_by_each_hit": sum(each.row.saved_usd for each in kept) / max(1, len(kept)),
    }


def saved(config: Config, since_s: float) -> dict[str, Any]:
    """What the ledger says of the cache's answers; nothing where there is no ledger."""
    try:
        rows = rollup(config.ledger.path, "how", since_s)
    except StoreError:
        return {}
    hits = [row for row in rows if row.name.startswith("cache")]
    return {
        "requests": sum(row.requests for row in rows),
        "hits": {row.name.removeprefix("cache: "): row.requests for row in hits},
        "hit_share": sum(row.share for row in hits),
        "saved_usd": sum(row.saved_usd for row in hits),
    }
