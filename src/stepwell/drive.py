"""Waiting without tasks: a coroutine is run by hand, and goes on in the very call that brings what it waits for.

An asyncio task goes on one turn of the loop later, through a future, a handle and a context: on a path of a few
microseconds that is a third of the cost. What runs here must not need `asyncio.current_task()`; whatever does
(timeouts, task groups) belongs into a task of its own that is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any

log = logging.getLogger(__name__)


class Baton:
    """Wakes the one who waits for it, at once. Awaited in an ordinary task it behaves as a future does."""

    __slots__ = ("_asyncio_future_blocking", "callback", "loop", "withdrawn")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.callback: Callable[[], object] | None = None
        self._asyncio_future_blocking = False
        self.withdrawn = False

    def __await__(self) -> Generator[Baton, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def pass_on(self) -> None:
        """Wake whoever waits; nobody may."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()

    # --- what a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it belongs to."""
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Remember the task that waits."""
        self.callback = partial(self.loop.call_soon, callback, self, context=context)

    def result(self) -> None:
        """Nothing; or CancelledError where the task was cancelled."""
        if self.withdrawn:
            self.withdrawn = False
            raise asyncio.CancelledError

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - asyncio's signature
        """Wake the task with CancelledError."""
        self.withdrawn = True
        self.pass_on()
        return True


class Drive:
    """One coroutine on its way."""

    __slots__ = ("cancelling", "coroutine", "loop", "over", "waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        """Run it, at once, as far as it goes without waiting."""
        self.coroutine, self.loop = coroutine, loop
        self.cancelling = self.over = False
        self.waits_for: Any = None
        self.step()

    def step(self, error: BaseException | None = None) -> None:
        """Run it up to the next thing it waits for."""
        try:
            waits_for = self.coroutine.send(None) if error is None else self.coroutine.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self.over = True
            return
        except Exception:
            self.over = True
            log.exception("a coroutine broke")
            return
        self.waits_for = waits_for
        if type(waits_for) is Baton:
            waits_for.callback = self.step
        elif waits_for is None:  # asyncio.sleep(0)
            self.loop.call_soon(self.woken)
        else:
            waits_for._asyncio_future_blocking = False  # noqa: SLF001 - what a task does with a future
            waits_for.add_done_callback(self.woken)

    def woken(self, waited_for: asyncio.Future[Any] | None = None) -> None:
        """What it waited for is there; a cancellation that came in between goes first."""
        late = self.cancelling and not (waited_for is not None and waited_for.cancelled())
        self.step(asyncio.CancelledError() if late else None)

    def cancel(self) -> None:
        """Stop it where it waits, as `Task.cancel` does."""
        if self.over or self.cancelling:
            return
        self.cancelling = True
        waits_for = self.waits_for
        if type(waits_for) is Baton:
            waits_for.callback = None
            self.step(asyncio.CancelledError())
        elif waits_for is not None:
            waits_for.cancel()
