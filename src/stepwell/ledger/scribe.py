"""The scribe: a process of its own that writes batches of entries to the ledger's file.

Each batch comes down a pipe as MessagePack behind its length, and is answered by what went wrong, or by nothing.
When the pipe ends, the scribe ends: it outlives nobody.
"""

from __future__ import annotations

import logging
import signal
import sqlite3
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from stepwell.errors import StoreError
from stepwell.ledger.file import File, Row

LENGTH = struct.Struct(">I")

decode = msgspec.msgpack.Decoder(list[list[object]]).decode


def main() -> None:
    """Write what comes down the pipe until it ends; signals are for those who hold its other end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    file = File(Path(sys.argv[1]))
    ours = False
    while (batch := received()) is not None:
        told = answer(file, batch, ours=ours)
        ours = not told
        with suppress(BrokenPipeError):  # nobody waits for it any more
            sys.stdout.buffer.write(LENGTH.pack(len(told)) + told)
            sys.stdout.buffer.flush()
    file.close()


def received() -> list[list[object]] | None:
    """The next batch; None where the pipe has ended, be it in the middle of one."""
    length = sys.stdin.buffer.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    batch = sys.stdin.buffer.read(LENGTH.unpack(length)[0])
    return decode(batch) if len(batch) == LENGTH.unpack(length)[0] else None


def answer(file: File, batch: Sequence[Row], *, ours: bool) -> bytes:
    """Write a batch; what went wrong, or nothing.

    `ours`: nobody before us can have written it. Else another scribe may have, and died before it could say so.
    """
    try:
        if ours or not file.has(batch[-1]):
            file.write(batch)
    except (sqlite3.Error, StoreError, OSError) as error:
        return str(error).encode() or type(error).__name__.encode()
    return b""
