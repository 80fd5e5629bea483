"""What a gateway would answer a request with by meaning: the same search, beside it, from the same logs.

Vectors need an extra, so this file is imported only where `[semantic]` is configured.
"""

from __future__ import annotations

import os

from stepwell.cache.asking import Asking
from stepwell.cache.coalesce import Flights
from stepwell.cache.features import NAMES
from stepwell.cache.key import Identity
from stepwell.cache.semantic import Semantic
from stepwell.cli.cache.opened import Nearest, Opened, own
from stepwell.cli.promise import replayed
from stepwell.config import Config
from stepwell.errors import BadRequest, ConfigError, EngineUnavailable
from stepwell.index.feed import Feed
from stepwell.meaning import embedder, identifier
from stepwell.quality.promise import Promise
from stepwell.steps.audits import family
from stepwell.steps.cache import Cache
from stepwell.types import Proposal, Request
from stepwell.well import DEFAULT_SECRET

PATIENCE_S = 30.0
COSINE = NAMES.index("cosine")


async def nearest(at: Opened, config: Config, request: Request) -> Nearest | None:
    """The answer that the neighbours speak for; None where there is none. Raises StepwellError."""
    assert config.semantic is not None  # noqa: S101 - asked only where there is one
    embeds = embedder(config.semantic)
    try:
        scope, exact = own(request, at.rules[request.model])
        who = identifier(config, embeds.name, secret(config))(scope, exact, request)
        if isinstance(who, str):
            raise BadRequest(f"no answer is kept, and it is not looked for by meaning: {who}")
        semantic = Semantic(embeds, at.exact, Feed(at.store), deadline_s=PATIENCE_S)
        await semantic.catch_up()
        promise = await replayed(config, at.store, 0.0)
        if promise.due():
            promise.refit()
        return await proposed(semantic, promise, request, who)
    finally:
        await embeds.close()


async def proposed(semantic: Semantic, promise: Promise, request: Request, who: Identity) -> Nearest | None:
    """The first candidate whose answer is still alive, and what the promise thinks of it."""
    vector = await semantic.vector(who.text)
    if vector is None:
        raise EngineUnavailable("the question could not be embedded", engine="embedder")
    asking = Asking(request, who, Flights(0), takes=lambda _: True, joins=lambda _: False)
    while (found := semantic.chosen(vector, who)) is not None:
        chosen, key = found
        told = await semantic.proposal(asking, chosen, key)
        if isinstance(told, Proposal) and told.evidence.case is not None:
            features, step = told.evidence.features, family(Cache.name, told)
            right = promise.right(step, features) if features else 0.0
            return Nearest(key.text, chosen.features[COSINE], right, step, features, told.evidence.case)
        semantic.feed.index.forget(key.answer)
    return None


def secret(config: Config) -> bytes:
    """What names of partitions are hashed with. Raises ConfigError: with another one nothing would be found."""
    variable = config.cache.secret_env
    if variable and not os.environ.get(variable):
        raise ConfigError(f"the environment variable {variable} is not set; export it", field="cache.secret_env")
    return os.environ.get(variable, "").encode() or DEFAULT_SECRET
