"""A body too large for memory, written to disk as it comes: to a file without a name, gone as soon as it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

from stepwell.errors import StoreError
from stepwell.gateway import private

MOST_WAITING_BYTES = 4 * 1024 * 1024
"""What may wait for the disk before the caller has to."""


class Room:
    """What the uploads under way of one tenant may take on disk together, in one process."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.num_bytes = limit_bytes, 0

    def takes(self, num_bytes: int) -> bool:
        """Take so many bytes, unless that passes the limit."""
        if self.num_bytes + num_bytes > self.limit_bytes:
            return False
        self.num_bytes += num_bytes
        return True

    def gives(self, num_bytes: int) -> None:
        """So many are gone from the disk."""
        self.num_bytes -= num_bytes


class Spool:
    """Takes pieces on the event loop and writes them in a thread; `wait` and `go_on` stop and start the caller."""

    def __init__(
        self, folder: Path, limit_bytes: int, room: Room, wait: Callable[[], None], go_on: Callable[[], None]
    ) -> None:
        """Raises OSError where the folder cannot be written."""
        private.folder(folder)
        self.file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the exchange
        self.limit_bytes, self.room, self.wait, self.go_on = limit_bytes, room, wait, go_on
        self.loop = asyncio.get_running_loop()
        self.num_bytes = self.num_held = self.num_waiting = 0
        self.waiting: list[bytes] = []
        self.writing: asyncio.Future[None] | None = None
        self.error: OSError | None = None
        self.crowded = self.closed = False

    def takes(self, data: bytes) -> bool:
        """Take a piece, unless it passes the limit, or (`crowded`) its tenant's others leave no room."""
        self.num_bytes += len(data)
        if self.num_bytes > self.limit_bytes:
            return False
        if not self.room.takes(len(data)):
            self.crowded = True
            return False
        self.num_held += len(data)
        self.waiting.append(data)
        self.num_waiting += len(data)
        if self.writing is None:
            self.write()
        elif self.num_waiting > MOST_WAITING_BYTES:
            self.wait()
        return True

    def write(self) -> None:
        """Have what waits written."""
        data, self.waiting, self.num_waiting = b"".join(self.waiting), [], 0
        self.writing = self.loop.run_in_executor(None, self.put, data)
        self.writing.add_done_callback(self.written)

    def put(self, data: bytes) -> None:
        """In a thread: write a piece; what goes wrong is told at the end."""
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error

    def written(self, _future: object) -> None:
        """One piece is there: on with the next."""
        self.writing = None
        if self.closed:
            self.file.close()
        elif self.waiting:
            self.write()
        else:
            self.go_on()

    async def whole(self) -> None:
        """Wait until everything is written. Raises StoreError where the disk is full."""
        while self.writing is not None:
            await asyncio.wait([self.writing])
            await asyncio.sleep(0)
        if self.error is not None:
            raise StoreError(f"the upload cannot be written ({self.error.strerror}); is the disk full?")
        self.file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self.closed = True
        self.room.gives(self.num_held)
        self.num_held = 0
        if self.writing is None:
            self.file.close()
