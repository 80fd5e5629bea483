"""A line to a server: what is asked while it is busy travels together next, and nobody waits longer than the deadline.

A server that failed a few times in a row is left alone for a moment, then tried by one question. A caller needs no task
of its own (`drive.py`): the line has one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from stepwell.breaker import Breaker
from stepwell.errors import StoreError

log = logging.getLogger(__name__)

Question = TypeVar("Question")
Reply = TypeVar("Reply")

FAILURES, ALONE_S = 3, 1.0
CONNECT_S = 2.0
"""Whoever asked is gone by then, but a slow handshake is not begun anew every few milliseconds."""
MAX_TOGETHER, MAX_WAITING = 1000, 10_000
VALUES_TOGETHER = 100
"""Where each question carries a value, of up to a megabyte."""


class Asked(Generic[Question, Reply]):
    """A question, and who waits for its reply."""

    __slots__ = ("question", "reply")

    def __init__(self, question: Question, reply: asyncio.Future[Reply]) -> None:
        self.question, self.reply = question, reply


class Line(Generic[Question, Reply]):
    """Carries questions; `carry` sends many and returns, for each, its reply or the error of that one."""

    def __init__(
        self,
        place: str,
        carry: Callable[[list[Question]], Awaitable[Sequence[Reply | Exception]]],
        deadline_s: float,
        together: int = MAX_TOGETHER,
    ) -> None:
        """`place` is what errors call the server; at most so many questions travel `together`."""
        self.place, self.carry, self.deadline_s, self.together = place, carry, deadline_s, together
        self.breaker = Breaker(FAILURES, ALONE_S)
        self.waiting: list[Asked[Question, Reply]] = []
        self.runner: asyncio.Task[None] | None = None
        self.closed = False

    async def ask(self, question: Question) -> Reply:
        """The reply. Raises StoreError: the server's no, no reply by the deadline; at once where it failed before."""
        if self.closed:
            raise StoreError(f"{self.place} is closed")
        if len(self.waiting) >= MAX_WAITING:
            raise StoreError(f"{self.place} is too slow: {MAX_WAITING} questions wait for it")
        if self.breaker.wait_s() > 0:
            raise StoreError(f"{self.place} did not answer and is left alone for a moment")
        loop = asyncio.get_running_loop()
        asked: Asked[Question, Reply] = Asked(question, loop.create_future())
        self.waiting.append(asked)
        if self.runner is None:
            self.runner = loop.create_task(self.run())
        timer = loop.call_later(self.deadline_s, self.late, asked)
        try:
            return await asked.reply
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Stop; whoever waits is told."""
        self.closed = True
        if self.runner is not None:
            self.runner.cancel()
            await asyncio.wait([self.runner])
        tell(self.waiting, StoreError(f"{self.place} is closed"))
        self.waiting = []

    async def run(self) -> None:
        """Carry one batch after the other, as long as there is something to ask."""
        try:
            while self.waiting:
                batch, self.waiting = self.waiting[: self.together], self.waiting[self.together :]
                batch = [asked for asked in batch if not asked.reply.done()]
                if batch:
                    await self.travel(batch)
                else:
                    self.breaker.undecided()
        finally:
            self.runner = None

    async def travel(self, batch: list[Asked[Question, Reply]]) -> None:
        """Carry a batch there, and its replies back."""
        try:
            async with asyncio.timeout(max(CONNECT_S, self.deadline_s)):
                replies = await self.carry([asked.question for asked in batch])
        except asyncio.CancelledError:
            tell(batch, StoreError(f"{self.place} is closed"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever a client library raises, the request goes on without it
            why = " ".join(str(error).split())[:200] or type(error).__name__
            self.failed(why)
            tell(batch, StoreError(f"{self.place} cannot be asked: {why}"))
            return
        if self.breaker.is_open():
            log.warning("%s answers again", self.place)
        self.breaker.succeeded()
        for asked, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                tell([asked], StoreError(f"{self.place} refuses: {reply}"))
            elif not asked.reply.done():
                asked.reply.set_result(reply)

    def late(self, asked: Asked[Question, Reply]) -> None:
        """The deadline of a question passed."""
        if not asked.reply.done():
            self.failed(f"no answer within {self.deadline_s * 1000:g} ms")
            tell([asked], StoreError(f"{self.place} did not answer within {self.deadline_s * 1000:g} ms"))

    def failed(self, why: str) -> None:
        """Count a failure; say once that requests go on without this store."""
        was_open = self.breaker.is_open()
        self.breaker.failed()
        if self.breaker.is_open() and not was_open:
            log.warning("%s does not answer (%s): requests go on without it", self.place, why)


def tell(batch: Sequence[Asked[Question, Reply]], error: StoreError) -> None:
    """Tell those who still wait what went wrong."""
    for asked in batch:
        if not asked.reply.done():
            asked.reply.set_exception(error)
