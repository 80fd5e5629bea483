"""Two engines with the same file: one for few requests, one for many, as they were measured here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from stepwell.config_embedded import EmbeddedEngine, Which
from stepwell.engines.embedded import Embedded
from stepwell.engines.fallback import start
from stepwell.engines.figures import NAMES, Pick, of_this, pick
from stepwell.engines.openvino import OpenVino
from stepwell.protocols import Engine
from stepwell.types import Chunk, Request

log = logging.getLogger(__name__)


class Auto:
    """Asks `many` from `many_from` requests at once on; what that cannot do is asked of `few`."""

    def __init__(self, name: str, few: Engine, many: Engine, many_from: int) -> None:
        self.name, self.few, self.many, self.many_from = name, few, many, many_from
        self.num_running = 0

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `protocols.Engine`."""
        self.num_running += 1
        try:
            await asyncio.sleep(0)  # whoever came in the same moment counts, too
            engines = [self.many, self.few] if self.num_running >= self.many_from else [self.few]
            opened = await start(engines, request)
            async with aclosing(opened.rest) as rest:
                yield opened.first
                async for chunk in rest:
                    yield chunk
        finally:
            self.num_running -= 1

    async def close(self) -> None:
        """Close both."""
        await self.few.close()
        await self.many.close()


def embedded(name: str, config: EmbeddedEngine) -> Engine:
    """The engine that a section names, or that figures speak for. Raises ConfigError."""
    if config.engine != "auto":
        return one(name, config, config.engine)
    found = pick(of_this(config))
    if found is None:
        log.warning("%s: no figures for %s here, so llama.cpp runs it: stepwell engines test", name, config.path)
        return one(name, config, "llamacpp")
    log.info("%s: %s", name, told(found))
    few = one(name, config, found.few)
    if found.few == found.many:
        return few
    return Auto(name, few, one(name, config, found.many), found.many_from)


def one(name: str, config: EmbeddedEngine, engine: Which) -> Engine:
    """One engine. Raises ConfigError."""
    config = msgspec.structs.replace(config, engine=engine)
    return OpenVino(name, config) if engine == "openvino" else Embedded(name, config)


def told(found: Pick) -> str:
    """A choice in words."""
    if found.few == found.many:
        return f"{NAMES[found.few]} runs it"
    return f"{NAMES[found.few]} runs it, {NAMES[found.many]} from {found.many_from} requests at once on"
