"""A reply that is made in a thread and read in the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from stepwell.errors import EngineError
from stepwell.types import Chunk


class Across:
    """Chunks on their way out of a thread; its reader may at any time want no more of them (`stopped`)."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.made: deque[Chunk] = deque()
        self.error: EngineError | None = None
        self.ended = self.stopped = False
        self.arrived = asyncio.Event()

    # --- in the event loop

    @property
    def over(self) -> bool:
        """True once everything made has been read."""
        return self.ended and not self.made and self.error is None

    async def next(self) -> list[Chunk]:
        """All that was made since the last call. Raises EngineError where the generation failed."""
        await self.arrived.wait()
        self.arrived.clear()
        chunks = []
        while self.made:
            chunks.append(self.made.popleft())
        if not chunks and self.error is not None:
            raise self.error
        if self.ended:
            self.arrived.set()
        return chunks

    # --- in the thread

    def put(self, *chunks: Chunk) -> None:
        """Hand over what was made."""
        self.made.extend(chunks)
        self.wake()

    def end(self, error: EngineError | None = None, chunks: Sequence[Chunk] = ()) -> None:
        """Hand over the last of it, or say why there is none; the first error stays."""
        self.made.extend(chunks)
        self.error = self.error or error
        self.ended = True
        self.wake()

    def wake(self) -> None:
        """Tell the event loop that something is there; once is enough until it has looked."""
        if not self.arrived.is_set() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.arrived.set)
