"""How `warm` asks: in a well of this process, or through a gateway that runs."""

from __future__ import annotations

import argparse
import asyncio
import os
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from time import perf_counter
from typing import Protocol

from msgspec import Struct

from stepwell.cli import explain
from stepwell.client import PATHS
from stepwell.config import Config
from stepwell.engines.replay import usage_of
from stepwell.errors import ConfigError, EngineBadReply, EngineRefusal, EngineUnavailable
from stepwell.gateway import openai
from stepwell.ledger.prices import Price
from stepwell.types import Caller, Usage
from stepwell.well import Well, build, large_price

PATIENCE_S = 600.0
SHALLOW = frozenset({"template", "cache"})
"""Steps whose answers were there already."""


class Ask(Protocol):
    """Asks one question."""

    def worst_usd(self, body: bytes) -> float:
        """The most that it can cost."""
        ...

    async def ask(self, body: bytes) -> tuple[str, float]:
        """How it went (generated, fresh), and USD. Raises StepwellError."""
        ...


class Costs(Struct, frozen=True):
    """What questions cost, by model."""

    prices: dict[str, Price]
    most_tokens: int

    def worst_usd(self, body: bytes) -> float:
        """As if every byte were a token, and the answer as long as it may be."""
        fields = openai.decoded(body)
        longest = fields.get("max_completion_tokens") or fields.get("max_tokens") or self.most_tokens
        return self.prices[fields["model"]].of(Usage(len(body), int(longest) * int(fields.get("n") or 1)))

    def usd(self, model: str, step: str, usage: Usage | None) -> float:
        """What an answer did cost."""
        return 0.0 if step in SHALLOW else self.prices[model].of(usage)


def costs(config: Config, most_tokens: int) -> Costs:
    """The prices of all routes. Raises ConfigError."""
    return Costs({name: large_price(name, route, config) for name, route in config.routes.items()}, most_tokens)


@asynccontextmanager
async def in_process(config: Config, caller: Caller, most_tokens: int) -> AsyncIterator[Ask]:
    """A well of our own on the same store: gateways that run find there what it keeps.

    What it knows by meaning is read first. A judge that is a model is not asked: that would cost beside the budget.
    """
    well = build(config, worker="warm")
    try:
        if well.meaning is not None:
            await well.meaning.ready()
        async with nullcontext() if config.promise.judge_engine else well.working():
            await well.below.exact.ready()
            yield InProcess(well, caller, costs(config, most_tokens))
    finally:
        await well.close()


class InProcess:
    """Asks a well."""

    def __init__(self, well: Well, caller: Caller, costs: Costs) -> None:
        self.well, self.caller, self.costs = well, caller, costs
        self.worst_usd = costs.worst_usd

    async def ask(self, body: bytes) -> tuple[str, float]:
        """One descent. Raises StepwellError."""
        kind, name = explain.kind_of(body), self.well.door.new_id()
        request = openai.parse(kind, body, id=name, caller=self.caller, started_s=perf_counter())
        outcome, told = await explain.answered(self.well, request)
        if outcome.answer is None or not told.complete:
            raise outcome.error or told.outcome.error or EngineBadReply("the answer is not whole")
        step = outcome.visits[-1].step
        return "fresh" if step in SHALLOW else "generated", self.costs.usd(request.model, step, told.usage)


@asynccontextmanager
async def through(given: argparse.Namespace, config: Config) -> AsyncIterator[Ask]:
    """A gateway that runs, which then has the answers in its memory, too. Raises ConfigError."""
    key = os.environ.get(given.key_env, "") if given.key_env else ""
    if given.key_env and not key:
        raise ConfigError(f"the environment variable {given.key_env} is not set; export it", field="--key-env")
    yield Through(given.gateway.rstrip("/").removesuffix("/v1"), key, costs(config, given.most_tokens))


class Through:
    """Asks a gateway."""

    def __init__(self, url: str, key: str, costs: Costs) -> None:
        self.url, self.costs = url, costs
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.worst_usd = costs.worst_usd

    async def ask(self, body: bytes) -> tuple[str, float]:
        """One POST. Raises EngineRefusal and EngineUnavailable."""
        fields = openai.decoded(body)
        step, told = await asyncio.to_thread(self.posted, PATHS[explain.kind_of(body)], openai.canonical(fields))
        usd = self.costs.usd(fields["model"], step, usage_of(told, "json"))
        return "fresh" if step in SHALLOW else "generated", usd

    def posted(self, path: str, body: bytes) -> tuple[str, bytes]:
        """The step that answered, and the answer."""
        request = urllib.request.Request(self.url + path, body, self.headers)  # noqa: S310 - the operator's own
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:  # noqa: S310
                return reply.headers.get("Stepwell-Step", ""), bytes(reply.read())
        except urllib.error.HTTPError as error:
            what = f"{error.code}: {error.read()[:200].decode('utf-8', 'replace')}"
            raise EngineRefusal(what, engine=self.url, status=error.code, body=b"") from error
        except OSError as error:
            raise EngineUnavailable(str(error), engine=self.url) from error
