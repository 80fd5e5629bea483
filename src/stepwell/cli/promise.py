"""`stepwell promise`: what is promised, and how it stands by the audits of all processes."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Mapping
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
from stepwell.quality.promise import Promise, Report, Terms
from stepwell.quality.report import lines
from stepwell.types import Label
from stepwell.well import shared

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.quality.promotion import Standing

UNCERTAIN = ("cache: semantic", "cache: slot_fill")
"""Rows of the ledger's rollup whose evidence is uncertain and told by labels; specialists have audits of their own."""
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
    report = None if config.semantic is None else reported(config, given.since)
    standings = stood(config)
    if given.json:
        told = {} if report is None else msgspec.to_builtins(report)
        print(msgspec.json.encode({**told, "specialists": standings}).decode())
    else:
        print("\n".join([*(lines(report) if report else ()), *shown(standings)]))
    return BROKEN if report and report.num_audits and report.error.estimate > report.terms.error else 0


def reported(config: Config, since_s: float) -> Report:
    """How the promise stands for what labels tell of. Raises ConfigError, StoreError."""
    check(config)
    promise = asyncio.run(learned(config, since_s))
    promise.num_requests, promise.num_served = counted(config, since_s)
    return promise.report()


def stood(config: Config) -> dict[str, Standing]:
    """Where each specialist stands. Raises StoreError."""
    if not config.specialists:
        return {}
    from stepwell.quality.promotion import Promotion  # noqa: PLC0415 - signatures need the extra

    return {name: Promotion(Path(each.promotion)).standing() for name, each in config.specialists.items()}


def shown(standings: Mapping[str, Standing]) -> Iterator[str]:
    """A line a specialist, and what its audits say."""
    for name, now in standings.items():
        from stepwell.quality.promotion import told  # noqa: PLC0415 - signatures need the extra

        yield f"specialist      {name}: {now.stage or 'never promoted'}{f', {now.reason}' if now.reason else ''}"
        yield f"                audits: {told(now)}"


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
