"""A pipe to a process that writes: batches of entries go down, what went wrong with each comes back.

A thread would not do: beside a busy event loop it is woken in vain at every callback while it waits for the
interpreter's lock, which was measured to cost a third of a request.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

import msgspec

from stepwell.errors import StoreError
from stepwell.ledger.listen import LENGTH

COMMAND = "from stepwell.ledger.scribe import main; main()"
"""Of the one that writes the ledger; its argument is the file."""
TRIES = 2
"""How often a batch is given to a scribe that dies of it."""
PATIENCE_S, END_S = 10.0, 5.0
"""How long a batch may take, and the last one once the pipe has ended: a disk may hang."""

encode = msgspec.msgpack.Encoder().encode


class Pipe:
    """Our end; the process begins with the first batch."""

    def __init__(self, command: str, *arguments: str) -> None:
        """`command`: what the process runs, in Python."""
        self.command, self.arguments = command, arguments
        self.process: Process | None = None

    async def write(self, entries: Sequence[object]) -> None:
        """Have a batch written, whole or not at all, and only once. Raises StoreError where it is not."""
        batch = encode(entries)
        for _ in range(TRIES):
            try:
                refusal = await asyncio.wait_for(self.told(batch), PATIENCE_S)
            except (OSError, asyncio.IncompleteReadError) as error:
                why = f"its writer is gone: {error!r}"
                await self.close()
            else:
                if refusal:
                    raise StoreError(refusal.decode())
                return
        raise StoreError(why)

    async def told(self, batch: bytes) -> bytes:
        """What the scribe says of a batch. Raises OSError and IncompleteReadError where it is gone."""
        if self.process is None:
            # -P: what lies in the working directory is not code
            command = [sys.executable, "-P", "-c", self.command, *self.arguments]
            self.process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        there, back = ends(self.process)
        there.write(LENGTH.pack(len(batch)) + batch)
        await there.drain()
        (length,) = LENGTH.unpack(await back.readexactly(LENGTH.size))
        return await back.readexactly(length)

    async def close(self) -> None:
        """End the process; it writes what it was given."""
        process, self.process = self.process, None
        if process is None:
            return
        ends(process)[0].close()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def ends(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    """The way there and the way back."""
    assert process.stdin is not None  # noqa: S101 - both were asked for
    assert process.stdout is not None  # noqa: S101
    return process.stdin, process.stdout
