"""Play requests over real HTTP, so many in flight at a time, and write down what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter

from msgspec import Struct

from stepwell.demo.client import Broken, Connection, Reply, text_of
from stepwell.demo.traffic import Ask

NUM_IN_FLIGHT = 64
PATH = "/v1/chat/completions"


class Place(Struct, frozen=True):
    """Where the gateway listens, and each tenant's API key."""

    host: str
    port: int
    keys: Mapping[str, str]


class Played(Struct, frozen=True, kw_only=True):
    """One request and what came back; `error` says what went wrong, empty where nothing did."""

    ask: Ask
    at_s: float
    """When it was sent, after the first."""
    step: str = ""
    cache: str = ""
    saved_usd: float | None = None
    first_s: float = 0.0
    seconds: float = 0.0
    text: str = ""
    error: str = ""


def play(asks: Sequence[Ask], place: Place, told: Callable[[Played], None]) -> list[Played]:
    """Ask everything, `NUM_IN_FLIGHT` at a time; `told` hears of each reply as it comes. In order of asking."""
    return asyncio.run(all_played(asks, place, told))


async def all_played(asks: Sequence[Ask], place: Place, told: Callable[[Played], None]) -> list[Played]:
    """Let so many callers take their next request from one line."""
    line = iter(enumerate(asks))
    played: dict[int, Played] = {}
    started_s = perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(min(NUM_IN_FLIGHT, len(asks))):
            callers.create_task(caller(line, place, played, started_s, told))
    return [played[index] for index in range(len(asks))]


async def caller(
    line: Iterator[tuple[int, Ask]],
    place: Place,
    played: dict[int, Played],
    started_s: float,
    told: Callable[[Played], None],
) -> None:
    """Ask one request after the other on one connection."""
    async with Connection(place.host, place.port) as connection:
        for index, ask in line:
            at_s = perf_counter() - started_s
            try:
                reply = await connection.ask(PATH, ask.body(), key=place.keys[ask.tenant])
                played[index] = noted(ask, at_s, reply)
            except (OSError, Broken) as error:
                played[index] = Played(ask=ask, at_s=at_s, error=str(error) or type(error).__name__)
            told(played[index])


def noted(ask: Ask, at_s: float, reply: Reply) -> Played:
    """What a reply says of itself. Raises Broken where it is none."""
    saved = reply.headers.get("stepwell-saved-usd")
    return Played(
        ask=ask,
        at_s=at_s,
        step=reply.headers.get("stepwell-step", ""),
        cache=reply.headers.get("cache-status", ""),
        saved_usd=None if saved is None else float(saved),
        first_s=reply.first_s,
        seconds=reply.seconds,
        text=text_of(reply),
    )
