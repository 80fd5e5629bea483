"""`stepwell cache invalidate`: no answer that depends on a tag is served any more, by any process, within a second."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from stepwell import config as configuration
from stepwell.cache.tags import bump
from stepwell.cli.cache.opened import Opened, add_config, answer_named, opened, wordings
from stepwell.cli.cache.told import show
from stepwell.config import Config
from stepwell.gateway.answers import surrogate_key

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("invalidate", help="drop what depends on a tag", description=__doc__)
    parser.add_argument("--tag", required=True, action="append", help="model:NAME, engine:NAME or your own; repeatable")
    parser.add_argument("--reason", default="", help="kept with the event")
    parser.add_argument("--dry-run", action="store_true", help="say what it would reach, and change nothing")
    add_config(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Invalidate. Raises StoreError."""
    config = configuration.load(given.config, secrets=False)
    show(asyncio.run(invalidated(given, config)), as_json=given.json)
    return 0


async def invalidated(given: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Bump every tag, unless it is a trial; say what that reaches and what a CDN must purge."""
    async with opened(config) as at:
        reached, known = await reach(at, set(given.tag))
        if not given.dry_run:
            for tag in given.tag:
                await bump(at.store, tag, at.keep_s, given.reason)
    return {
        "tags": given.tag,
        "invalidated": not given.dry_run,
        "answers_reached": reached,
        "answers_looked_at": known,
        "purge_at_the_cdn": [surrogate_key(tag) for tag in given.tag],
    }


async def reach(at: Opened, tags: set[str]) -> tuple[int, int]:
    """How many living answers carry one of the tags, of those that the log of keys names."""
    known = [await answer_named(at, name) for name in await wordings(at.store)]
    living = [each for each in known if each is not None and each.state != "invalidated"]
    return sum(not tags.isdisjoint(each.row.tags) for each in living), len(living)
