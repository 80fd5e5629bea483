"""`stepwell promise`: what is promised, and how it stands by the audits of all processes."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgspec

from stepwell import config as configuration
from stepwell.cache.rows import LABELS
from stepwell.cli.cache.opened import check, rows_of
from stepwell.cli.ledger import since
from stepwell.config import Config
from stepwell.errors import ConfigError, StoreError
from stepwell.ledger.rollup import rollup
from stepwell.protocols import Store
from stepwell.quality.promise import Promise, Terms
from stepwell.quality.report import lines
from stepwell.types import Label
from stepwell.well import shared

if TYPE_CHECKING:
    from argparse import _SubParsersAction

UNCERTAIN = ("cache: semantic", "cache: slot_fill", "specialist")
"""Rows of the ledger's rollup that were answered on uncertain evidence."""
BROKEN = 1


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("promise", help="what is promised, and how it stands", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("stepwell.toml"), help="default: stepwell.toml")
    parser.add_argument("--since", type=since, default=0.0, help="a date (2026-11-01) or a span (90m, 24h, 7d)")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Report; 1 where the audits say that more is wrong than was promised. Raises ConfigError, StoreError."""
    config = configuration.load(given.config, secrets=False)
    if config.promise.error == 0:
        raise ConfigError("nothing uncertain is served: say [promise] error, and [semantic]", file=str(given.config))
    check(config)
    promise = asyncio.run(learned(config, given.since))
    promise.num_requests, promise.num_served = counted(config, given.since)
    report = promise.report()
    print(msgspec.json.encode(report).decode() if given.json else "\n".join(lines(report)))
    return BROKEN if report.num_audits and report.error.estimate > report.terms.error else 0


async def learned(config: Config, since_s: float) -> Promise:
    """The promise as the store knows it. Raises ConfigError, StoreError."""
    store = shared(config)
    try:
        return await replayed(config, store, since_s)
    finally:
        await store.close()


async def replayed(config: Config, store: Store, since_s: float) -> Promise:
    """A promise that has learned every label in the store. Raises StoreError."""
    terms = config.promise
    promise = Promise(Terms(terms.error, terms.hit_error, terms.audit), Random(0))  # noqa: S311 - it rules on nothing
    async for label in rows_of(store, LABELS, msgspec.msgpack.Decoder(Label)):
        if label.at_s >= since_s:
            promise.learn(label)
            promise.num_audits += label.would_serve
    return promise


def counted(config: Config, since_s: float) -> tuple[int, int]:
    """Requests, and those of them that were answered on uncertain evidence, by the ledger; none where there is none."""
    try:
        rows = rollup(config.ledger.path, "how", since_s)
    except StoreError:
        return 0, 0
    return sum(row.requests for row in rows), sum(row.requests for row in rows if row.name in UNCERTAIN)
