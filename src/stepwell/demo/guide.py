"""The guide: a server that looks up the venue a question names, and has the house writer say its facts.

What many companies run today behind a model's name: retrieval, then a generator. Started by the demonstration as
`python -m stepwell.demo.guide --model GGUF --city SEED --port PORT`; it speaks OpenAI's API, on loopback.
"""

from __future__ import annotations

import argparse
from itertools import count
from time import time

import msgspec

from stepwell.config import EmbeddedEngine
from stepwell.demo.city import venues
from stepwell.demo.people import wanted
from stepwell.demo.traffic import MAX_TOKENS, MODEL
from stepwell.engines.embedded import Embedded
from stepwell.engines.openai import said
from stepwell.engines.texts import last_text
from stepwell.gateway import serve
from stepwell.gateway.answer import Door
from stepwell.gateway.http import Limits
from stepwell.protocols import Engine
from stepwell.quality.promise import rule
from stepwell.steps.large import Large
from stepwell.types import Answer, Defer, Evidence, Proposal, Request, Usage

LIMITS = Limits(
    max_body_bytes=1 << 20,
    max_head_bytes=1 << 15,
    max_connections=4096,
    receive_timeout_s=20,
    idle_timeout_s=75,
    send_timeout_s=60,
)


class Guide:
    """The one step: facts of the venue that is named, in the writer's words."""

    name = "guide"

    def __init__(self, engine: Engine, num_venues: int, city_seed: int) -> None:
        self.large = Large({MODEL: [engine]})
        self.venues = {venue["name"]: venue for venue in venues(num_venues, city_seed)}

    async def propose(self, request: Request) -> Proposal | Defer:
        """Look up, then generate; a venue that is not of this city is said to be unknown."""
        asked = last_text(request)
        facts = None if isinstance(asked, str) else wanted(asked.text, self.venues)
        if facts is None:
            body = said(request, "I know no venue of this name.", Usage(8, 8, estimated=True))
            return Proposal(Answer(form="json", body=body, engine="guide"), Evidence("large"))
        return await self.large.propose(about(request, facts))


def about(request: Request, facts: str) -> Request:
    """The question to the writer: the facts, in the form it was trained on."""
    body = {
        "model": request.model,
        "messages": [{"role": "user", "content": facts}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": request.stream,
        "stream_options": {"include_usage": True} if request.stream else None,
    }
    return msgspec.structs.replace(request, body=msgspec.json.encode(body), include_usage=True)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--venues", type=int, required=True)
    parser.add_argument("--city", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    numbers = count()

    async def standing() -> None:
        engine = Embedded("house-writer", EmbeddedEngine(path=given.model, threads=1))
        door = Door(
            callers={},
            stairs={MODEL: (Guide(engine, given.venues, given.city),)},
            rule=rule,
            settlers=(),
            new_id=lambda: f"guide-{next(numbers):x}",
            keep_bytes=0,
            ready=lambda: "",
            metrics=lambda: b"",
            refused=lambda _code, _status: None,
            started_s=int(time()),
        )
        place = serve.Place(host="127.0.0.1", port=given.port, workers=1, drain_s=5.0)
        try:
            await serve.stand(serve.bound(place), door, LIMITS, place.drain_s)
        finally:
            await engine.close()

    serve.run(standing)


if __name__ == "__main__":
    main()
