"""The part of the composition root that only those need who answer by meaning: embedder, index, promise, audits."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Mapping
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from stepwell.cache.exact import Exact
from stepwell.cache.key import Identity, identity
from stepwell.cache.semantic import Semantic
from stepwell.config import Config, HttpEngine
from stepwell.config import Semantic as Section
from stepwell.engines.embed import MiniLm
from stepwell.engines.embed_http import HttpEmbedder
from stepwell.engines.http import Http
from stepwell.index.feed import Feed
from stepwell.protocols import Embedder, Engine
from stepwell.quality.judges import named
from stepwell.quality.promise import Promise, Terms
from stepwell.quality.report import prometheus
from stepwell.steps.audits import Audits
from stepwell.steps.cache import Cache, Identify
from stepwell.steps.judging import Worth, asking
from stepwell.steps.pace import Pace
from stepwell.types import Request

MOST_WAITING = 1000


class ByMeaning(Struct, frozen=True):
    """What answers the same question in other words."""

    embedder: Embedder
    semantic: Semantic
    audits: Audits
    identify: Identify
    worker: str

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on beside requests: follow the logs, judge, learn."""
        return self.semantic.run(), self.audits.run(), self.audits.follow()

    def unknown(self) -> str:
        """What is still to be learned of all that was known before the start; empty where nothing is."""
        if not self.semantic.tried:
            return "the index is being read"
        return "" if self.audits.tried else "labels are being learned from"

    async def ready(self) -> None:
        """Know at once what a gateway learns as it runs: every wording and every label. Raises StoreError."""
        await self.semantic.catch_up()
        await self.audits.read()
        if self.audits.promise.due():
            self.audits.promise.refit()

    def metrics(self) -> bytes:
        """How the promise stands, for Prometheus."""
        audits = self.audits
        return prometheus(
            audits.promise.report(),
            usd=audits.usd,
            num_unclear=audits.num_unclear,
            num_dropped=audits.num_dropped,
            worker=self.worker,
        )

    async def close(self) -> None:
        """Keep the index for the next start; let the embedder end."""
        await self.semantic.close()
        await self.embedder.close()


def compose(
    config: Config, exact: Exact, engines: Mapping[str, Engine], worth: Worth, *, secret: bytes, worker: str
) -> ByMeaning:
    """Put it together. Raises ConfigError."""
    section, terms, store = config.semantic, config.promise, exact.store
    assert section is not None  # noqa: S101 - only called where there is one,
    assert store is not None  # noqa: S101 - and then there is a store
    embeds = embedder(section)
    file = Path(section.snapshot) / f"index-{worker or 0}" if section.snapshot else None
    chance = Random(int.from_bytes(os.urandom(8)))  # noqa: S311 - samples, no secrets
    promise = Promise(Terms(terms.error, terms.hit_error, terms.audit), chance)
    semantic = Semantic(
        embeds,
        exact,
        Feed(store, file),
        deadline_s=section.deadline_ms / 1000,
        patience_s=section.patience_ms / 1000,
        likely=lambda features: promise.passes(promise.right(Cache.name, features)),
    )
    judge = named(terms.judge, embed=embeds.embed, ask=asking(config, engines, worth))
    pace = Pace(terms.label, terms.judge_usd_hour)
    audits = Audits(promise, judge, store, {Cache.name: semantic}, pace=pace, max_waiting=MOST_WAITING, chance=chance)
    return ByMeaning(embeds, semantic, audits, identifier(config, embeds.name, secret), worker)


def embedder(section: Section) -> Embedder:
    """The embedder that the file describes. Raises ConfigError."""
    if section.embedder == "minilm":
        return MiniLm(Path(section.path) if section.path else None, Path(section.converted))
    key = os.environ.get(section.key_env, "")

    async def bearer() -> str:
        return key

    engine = HttpEngine(url=section.url, model=section.model, key_env=section.key_env)
    return HttpEmbedder(Http("embedder", engine, bearer if key else None), section.model)


def identifier(config: Config, embedder: str, secret: bytes) -> Identify:
    """What a question is to the search by meaning, on routes that want it."""

    def identify(scope: bytes, exact: bytes, request: Request) -> Identity | str:
        if not config.routes[request.model].semantic:
            return "the route does not want it"
        return identity(scope, exact, request, embedder=embedder, secret=secret)

    return identify
