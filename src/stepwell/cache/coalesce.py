"""One upstream call for any number of equal requests in flight: the first leads, the others read along.

The call belongs to the flight, not to the request that led: whoever leaves, it goes on while anybody wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any

from stepwell.cache.live import Live, Reader, waiting, wake
from stepwell.drive import Baton, Drive
from stepwell.errors import StepwellError
from stepwell.types import Answer, Chunk, Form, Outcome, Usage


class Flights:
    """Questions being answered right now, by exact digest."""

    __slots__ = ("flying", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes`: what is kept of each answer for those who come late."""
        self.flying: dict[bytes, Flight] = {}
        self.limit_bytes = limit_bytes

    def lead(self, exact: bytes, partition: bytes, tags: tuple[str, ...], position: int) -> Flight:
        """Begin a flight; one that flies already is joined by nobody any more."""
        flight = self.flying[exact] = Flight(exact, partition, tags, position, self)
        return flight

    def ended(self, flight: Flight) -> None:
        """Let nobody join a flight any more."""
        if self.flying.get(flight.exact) is flight:
            del self.flying[flight.exact]


class Flight:
    """One question being answered: first its leader looks around, then the steps below are asked, once."""

    __slots__ = (
        "about",
        "answer",
        "background",
        "began_s",
        "drive",
        "ends",
        "error",
        "exact",
        "fence",
        "flights",
        "forms",
        "live",
        "num_wanting",
        "num_whole",
        "outcome",
        "over",
        "paid",
        "partition",
        "position",
        "replaces",
        "tags",
        "uncertain",
        "waiting",
    )

    def __init__(self, exact: bytes, partition: bytes, tags: tuple[str, ...], position: int, flights: Flights) -> None:
        self.exact, self.partition, self.tags, self.position = exact, partition, tags, position
        self.flights = flights
        self.about: Any = None
        """What a search by meaning wants to know of it (a vector)."""
        self.replaces = b""
        """The older answer to the same question, whose wordings shall lead to the new one."""
        self.uncertain = False
        """True where the leader was given what a promise let pass."""
        self.background = False
        """True for a refresh: no request waits for it."""
        self.fence = 0
        self.began_s = perf_counter()
        self.drive: Drive | None = None
        self.num_wanting = self.num_whole = 0
        self.outcome: Outcome | None = None
        """What came from below, as soon as it begins to answer."""
        self.live: Live | None = None
        self.over = False
        self.answer: Answer | None = None
        """The whole answer, once it is there and may be shared."""
        self.forms: dict[tuple[Form, bool], bytes] = {}
        """The whole answer as others want it: its form, and whether with usage."""
        self.error: Exception | None = None
        self.paid: Usage | None = None
        """What the leader's own entry pays, where the leader has left before the end."""
        self.waiting: list[Baton] = []
        self.ends: list[Baton] = []

    # --- those who want it

    def want(self) -> None:
        """One more who wants the answer."""
        self.num_wanting += 1

    def leave(self) -> None:
        """One less. What nobody wants is not generated."""
        self.num_wanting -= 1
        if self.num_wanting == 0 and self.drive is not None and not self.over:
            self.flights.ended(self)
            asyncio.get_running_loop().call_soon(self.drive.cancel)  # never from within its own step

    def reader(self, *, after_first: bool = False) -> Reader:
        """Read along, from the start or from behind the first chunk; closing the reader leaves the flight."""
        assert self.live is not None  # noqa: S101 - only for an answer that came as a stream
        reader = Reader(self.live, self.leave)
        if after_first and self.live.num_gone == 0:
            reader.at, reader.read_bytes = 1, len(self.live.chunks[0].data)
        return reader

    async def begun(self) -> None:
        """Wait until an answer begins, or the flight is over."""
        if self.outcome is None and not self.over:
            await waiting(self.waiting)

    async def ended(self) -> None:
        """Wait until the flight is over, or its answer too large to be kept for those who want it whole."""
        self.num_whole += 1
        try:
            self.hurry()
            while not self.over and self.shareable:
                await waiting(self.ends)
        finally:
            self.num_whole -= 1
            self.hurry()

    async def within(self, patience_s: float) -> Answer | None:
        """The whole answer, if it is there in time: for those who ask nearly the same."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + patience_s
        self.want()
        try:
            while not self.over and self.shareable and loop.time() < until_s:
                timer = loop.call_at(until_s, wake, self.ends)
                try:
                    await waiting(self.ends)
                finally:
                    timer.cancel()
        finally:
            self.leave()
        return self.answer

    def hurry(self) -> None:
        """Let the source wait for no reader while somebody wants the whole."""
        if self.live is not None:
            self.live.hurried = self.num_whole > 0
            self.live.unpark()

    @property
    def shareable(self) -> bool:
        """False once the answer is too large to be kept whole."""
        return self.live is None or not self.live.large

    # --- the call

    def fly(self, going: Coroutine[Any, Any, Outcome], landed: Callable[[Flight], None]) -> None:
        """Ask below, whoever leaves; `landed` is called once, when the answer is whole, broken or not wanted."""
        self.drive = Drive(self.flown(going, landed), asyncio.get_running_loop())

    async def flown(self, going: Coroutine[Any, Any, Outcome], landed: Callable[[Flight], None]) -> None:
        """See one call to its end."""
        try:
            self.outcome = outcome = await going
            self.error, answer = outcome.error, outcome.answer
            if answer is not None and answer.chunks is not None:
                await self.streamed(answer)
            else:
                self.answer = answer
        except Exception as error:  # noqa: BLE001 - whatever broke, those who wait are told
            self.error = (
                error if isinstance(error, StepwellError) else StepwellError(f"{type(error).__name__}: {error}")
            )
        finally:
            landed(self)
            self.land()

    async def streamed(self, answer: Answer) -> None:
        """Pass a stream on to everybody."""
        self.live = live = Live(self.flights.limit_bytes, self.ends)
        live.hurried = self.num_whole > 0
        live.add(Chunk(answer.body, answer.usage))
        wake(self.waiting)
        await live.fill(answer.chunks)
        if self.shareable:
            self.answer = Answer(
                form=answer.form, body=live.body(), usage=live.usage or answer.usage, engine=answer.engine
            )

    def land(self, answer: Answer | None = None) -> None:
        """Nothing more will come: tell all who wait."""
        self.over, self.answer = True, answer or self.answer
        self.flights.ended(self)
        wake(self.waiting)
        if self.live is not None:
            self.live.end(self.error)
        wake(self.ends)
