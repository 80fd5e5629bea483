"""`stepwell cache get`: what is kept for a request, how old it is, what it depends on, what else leads to it."""

from __future__ import annotations

import argparse
import asyncio
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING, Any

from stepwell import config as configuration
from stepwell.cli.cache.opened import Kept, add_caller, add_config, meant, opened, wordings
from stepwell.cli.cache.told import show, span
from stepwell.config import Config
from stepwell.index.rows import KeyAdded

if TYPE_CHECKING:
    from argparse import _SubParsersAction

MOST_TEXTS = 20


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("get", help="what is kept for a request", description=__doc__)
    parser.add_argument("what", metavar="REQUEST.json|ANSWER", help="a file with a request's body, or an answer's name")
    add_caller(parser)
    add_config(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print it. Raises StoreError, and BadRequest where nothing is kept."""
    config = configuration.load(given.config, secrets=False)
    for told in asyncio.run(found(given, config)):
        show(told if given.json else spoken(told), as_json=given.json)
    return 0


async def found(given: argparse.Namespace, config: Config) -> list[dict[str, Any]]:
    """What is kept: the caller's own answer, everybody's, or both."""
    async with opened(config) as at:
        kept = await meant(at, given, config, given.what)
        texts = await wordings(at.store)
        return [described(whose, each, texts.get(bytes.fromhex(each.name), [])) for whose, each in kept.items()]


def described(whose: str, kept: Kept, texts: list[KeyAdded]) -> dict[str, Any]:
    """All there is to say of one answer."""
    row, near = kept.row, kept.nearest
    return {
        "whose": whose,
        **({} if near is None else {"nearest": near.wording, "cosine": near.cosine, "p": near.right}),
        "answer": kept.name,
        "state": kept.state,
        "made_s": row.made_s,
        "stale_s": row.stale_s,
        "expires_s": kept.expires_s,
        "engine": row.engine,
        "form": row.form,
        "bytes": len(row.body),
        "sha256": sha256(row.body).hexdigest(),
        "saved_usd": row.saved_usd,
        "tags": list(row.tags),
        "num_wordings": len(texts),
        "wordings": [each.text for each in texts[-MOST_TEXTS:]],
        "body": row.body.decode("utf-8", "replace"),
    }


def spoken(told: dict[str, Any]) -> dict[str, Any]:
    """Times of day as times from now."""
    now_s = time()
    ages = {
        "made_s": span(told["made_s"] - now_s),
        "stale_s": f"{'in ' if told['stale_s'] > now_s else ''}{span(told['stale_s'] - now_s)}",
        "expires_s": f"in {span(told['expires_s'] - now_s)}",
    }
    names = {"made_s": "made", "stale_s": "stale", "expires_s": "forgotten", "num_wordings": "known wordings"}
    return {names.get(name, name): ages.get(name, value) for name, value in told.items()}
