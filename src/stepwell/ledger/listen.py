"""The far end of a pipe: batches come down it behind their length, each is answered by what went wrong, or by nothing.

When the pipe ends, so does the process that listens: it outlives nobody.
"""

from __future__ import annotations

import logging
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

LENGTH = struct.Struct(">I")


def listen(answer: Callable[[bytes], bytes]) -> None:
    """Answer every batch until the pipe ends; signals are for those who hold its other end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    while (batch := received()) is not None:
        told = answer(batch)
        with suppress(BrokenPipeError):  # nobody waits for it any more
            sys.stdout.buffer.write(LENGTH.pack(len(told)) + told)
            sys.stdout.buffer.flush()


def received() -> bytes | None:
    """The next batch; None where the pipe has ended, be it in the middle of one."""
    length = sys.stdin.buffer.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    batch = sys.stdin.buffer.read(LENGTH.unpack(length)[0])
    return batch if len(batch) == LENGTH.unpack(length)[0] else None
