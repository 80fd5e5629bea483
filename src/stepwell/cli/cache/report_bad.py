"""`stepwell cache report-bad`: an answer is wrong: kill it with all its keys, and remember that it was."""

from __future__ import annotations

import argparse
import asyncio
from time import time
from typing import TYPE_CHECKING, Any

from stepwell import config as configuration
from stepwell.cache import tags
from stepwell.cli.cache.opened import Kept, add_caller, add_config, meant, opened, wordings
from stepwell.cli.cache.told import show
from stepwell.config import Config
from stepwell.gateway.answers import surrogate_key
from stepwell.types import Label

if TYPE_CHECKING:
    from argparse import _SubParsersAction

NO_VERSION = 0
"""Of features: there are none to learn from, only the fact."""
LEARNS = "learns from it"
LEARNS_NOTHING = "keeps the fact, and learns nothing: only what was found by meaning for a request can be weighed"


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("report-bad", help="kill a wrong answer", description=__doc__)
    parser.add_argument("what", metavar="ANSWER|REQUEST.json", help="an answer's name, or a file with a request's body")
    parser.add_argument("--reason", default="", help="kept with the event")
    add_caller(parser)
    add_config(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Report. Raises StoreError, and BadRequest where no answer is meant."""
    config = configuration.load(given.config, secrets=False)
    show(asyncio.run(reported(given, config)), as_json=given.json)
    return 0


async def reported(given: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Kill every answer that is meant."""
    async with opened(config) as at:
        kept = await meant(at, given, config, given.what)
        texts = await wordings(at.store)
        for each in kept.values():
            await tags.report_bad(at.store, bytes.fromhex(each.name), at.keep_s, wrong(each), given.reason)
    nearest = [each.nearest for each in kept.values() if each.nearest is not None]
    names = [bytes.fromhex(each.name) for each in kept.values()]
    return {
        "killed": [name.hex() for name in names],
        "wordings_killed": sum(len(texts.get(name, [])) for name in names),
        "purge_at_the_cdn": [surrogate_key(tags.tag_of(name)) for name in names],
        "found_by_meaning": [f"{each.wording} (cosine {each.cosine:.2f}, p = {each.right:.3f})" for each in nearest],
        "promise": LEARNS if nearest else LEARNS_NOTHING,
    }


def wrong(kept: Kept) -> Label:
    """What is written down. Reports are no sample: they count in no estimate."""
    near = kept.nearest
    return Label(
        step="cache" if near is None else near.step,
        partition=kept.row.partition,
        features=() if near is None else near.features,
        right=False,
        predicted=1.0 if near is None else near.right,
        share=1.0,
        would_serve=False,
        at_s=time(),
        version=NO_VERSION if near is None else near.case.version,
        key=b"" if near is None else near.case.principal,
        cluster=bytes.fromhex(kept.name),
    )
