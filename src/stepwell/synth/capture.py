"""A settler that keeps questions and answers to learn from, of tenants who allow it; the rest of the work is elsewhere.

It notes what was said and returns. A process of its own makes rows of it, masks them and writes them, for that takes a
hundred times longer than an answer from the cache may (`capture_scribe.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, time

import msgspec

from stepwell.config_kept import Capture as Section
from stepwell.errors import StoreError
from stepwell.ledger.pipe import Pipe
from stepwell.synth.seen import LARGE, Seen
from stepwell.types import Settled, Usage

log = logging.getLogger(__name__)

COMMAND = "from stepwell.synth.capture_scribe import main; main()"
OK = 200
BATCH = 200
MOST_WAITING_BYTES = 32 * 1024 * 1024
RETRY_S = 1.0
NOTHING = Usage(0, 0)

Worth = Callable[[str, Usage | None], float]
"""USD that an answer of a route costs at the large model."""


class Capture:
    """See the head of this file."""

    def __init__(self, section: Section, worth: Worth) -> None:
        self.section, self.worth = section, worth
        self.tenants, self.routes, self.steps = frozenset(section.tenants), section.routes, section.steps
        self.waiting: deque[Seen] = deque()
        self.num_bytes = self.num_lost = 0
        self.spare, self.filled_s = float(section.rows_s), monotonic()
        self.closing = asyncio.Event()
        self.writing: asyncio.Task[None] | None = None
        self.pipe_free = asyncio.Lock()
        absolute = msgspec.structs.replace(section, folder=str(Path(section.folder).absolute()))
        self.pipe = Pipe(COMMAND, msgspec.json.encode(absolute).decode())

    def settle(self, settled: Settled) -> None:
        """Note a complete answer, if its tenant allows that and there is room."""
        request = settled.request
        if not settled.complete or settled.status != OK or request.caller.tenant not in self.tenants:
            return
        if not self.wants(settled):
            return
        size = len(settled.body) + len(request.body)
        if not self.has_room(size):
            self.num_lost += 1
            return
        self.waiting.append(self.seen(settled))
        self.num_bytes += size
        if self.writing is None:
            self.writing = asyncio.get_running_loop().create_task(self.write_soon())

    def wants(self, settled: Settled) -> bool:
        """Whether this is a question and an answer on a route and of a step that are kept, and nobody objects."""
        request = settled.request
        if self.routes and request.model not in self.routes:
            return False
        if self.steps and settled.outcome.visits[-1].step not in self.steps:
            return False
        return request.kind != "embedding" and bool(settled.body) and b"no-store" not in request.cache_control.lower()

    def has_room(self, size: int) -> bool:
        """Whether so many rows a second, and so many bytes that wait, allow another one."""
        now_s = monotonic()
        self.spare = min(float(self.section.rows_s), self.spare + (now_s - self.filled_s) * self.section.rows_s)
        self.filled_s = now_s
        if self.spare < 1.0 or self.num_bytes + size > MOST_WAITING_BYTES:
            return False
        self.spare -= 1.0
        return True

    def seen(self, settled: Settled) -> Seen:
        """What is handed over."""
        request, outcome, usage = settled.request, settled.outcome, settled.usage or NOTHING
        step = outcome.visits[-1].step
        usd = sum(visit.usd for visit in outcome.visits)
        return Seen(
            tenant=request.caller.tenant,
            request=request.id,
            at_s=time(),
            route=request.model,
            kind=request.kind,
            asked=request.body,
            form=settled.form,
            answered=settled.body,
            step=step,
            engine=outcome.answer.engine if outcome.answer else "",
            usd=usd + self.worth(request.model, settled.usage) if step == LARGE else usd,
            tokens_in=usage.input_tokens,
            tokens_out=usage.output_tokens,
        )

    async def write_soon(self) -> None:
        """Hand over what waits, and again while the disk refuses."""
        wait_s = self.section.flush_ms / 1000
        while self.waiting:
            await self.pause(wait_s)
            written = await self.write()
            wait_s = self.section.flush_ms / 1000 if written else RETRY_S
            if self.closing.is_set() and not written:
                break
        self.writing = None

    async def pause(self, seconds: float) -> None:
        """Let rows gather; not when closing."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)

    async def write(self) -> bool:
        """Hand over what waits; where the disk refuses, the rest waits for the next time."""
        while self.waiting:
            batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), BATCH))]
            try:
                async with self.pipe_free:
                    await self.pipe.write(batch)
            except StoreError as error:
                self.waiting.extendleft(reversed(batch))
                log.error("captured rows cannot be written (%s): %d wait", error, len(self.waiting))  # noqa: TRY400
                return False
            self.num_bytes -= sum(len(each.asked) + len(each.answered) for each in batch)
        return True

    async def remind(self) -> None:
        """Have files given to readers whose time has come, for ever."""
        while True:
            await asyncio.sleep(self.section.shard_s)
            with suppress(StoreError):
                async with self.pipe_free:
                    if self.pipe.process is not None:
                        await self.pipe.write([])

    async def close(self) -> None:
        """Write what waits, and give it to readers."""
        self.closing.set()
        if self.writing is not None:
            await self.writing
        if self.waiting or self.num_lost:
            log.warning("%d rows were not captured: too many, or the disk refused", len(self.waiting) + self.num_lost)
        await self.pipe.close()
