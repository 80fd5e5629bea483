"""The scribe: a process of its own that writes batches of entries (MessagePack) to the ledger's file."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stepwell.errors import StoreError
from stepwell.ledger.file import File, Row
from stepwell.ledger.listen import listen

decode = msgspec.msgpack.Decoder(list[list[object]]).decode


def main() -> None:
    """Write what comes down the pipe until it ends."""
    file = File(Path(sys.argv[1]))
    ours = False

    def written(batch: bytes) -> bytes:
        nonlocal ours
        told = answer(file, decode(batch), ours=ours)
        ours = not told
        return told

    listen(written)
    file.close()


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
