"""The last step: the large model, through the first of its engines that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepwell.engines.fallback import start
from stepwell.protocols import Engine
from stepwell.types import Answer, Evidence, Proposal, Request


class Large:
    """Answers, or raises the EngineError of the last engine tried."""

    name = "large"

    def __init__(self, engines: Mapping[str, Sequence[Engine]]) -> None:
        """`engines`: for each model the engines to try, in this order."""
        self.engines = engines

    async def propose(self, request: Request) -> Proposal:
        """Start the generation and wait for its first chunk, so that a dead engine fails here and not mid-stream."""
        opened = await start(self.engines[request.model], request)
        first = opened.first
        if first.last:
            await opened.rest.aclose()
        answer = Answer(
            form="events" if request.stream else "json",
            body=first.data,
            chunks=None if first.last else opened.rest,
            usage=first.usage,
            engine=opened.engine,
            saved_usd=0.0,
        )
        return Proposal(answer, Evidence("large", opened.engine))
