"""A whole index in one file, for workers far from their store: a start reads it, and only what is newer from the log.

Beside a store on the same disk it would only hold everything twice: reading 100,000 keys from SQLite takes seconds.
Written whole or not at all, with a checksum; one that is damaged or of another version counts as none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from stepwell.index.cells import Cells
from stepwell.index.flat import Flat
from stepwell.index.index import NO_PART, Index

log = logging.getLogger(__name__)

VERSION = 1
DIGEST_BYTES = 32


class Part(Struct, frozen=True):
    """One partition: numbers int64, codes int8. Where there are cells they stand cell by cell; centres are int8."""

    name: bytes
    num_dimensions: int
    numbers: bytes
    codes: bytes
    sizes: list[int] = []
    centres: bytes = b""


class Snapshot(Struct, frozen=True):
    """An index, and where in the log it stands: a position, and the SHA-256 of the row there."""

    version: int
    position: int
    row: bytes
    columns: Mapping[str, bytes]
    parts: list[Part]


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Snapshot).decode


def taken(index: Index, position: int, row: bytes) -> Snapshot:
    """A copy of all there is, for another thread to write."""
    parts = [part_of(name, part) for name, part in zip(index.names, index.parts, strict=True)]
    return Snapshot(VERSION, position, row, index.keys.columns(), parts)


def part_of(name: bytes, part: Flat | Cells) -> Part:
    """A copy of one partition."""
    if isinstance(part, Flat):
        return Part(name, part.num_dimensions, part.numbers.tobytes(), bytes(part.codes))
    return Part(
        name,
        part.num_dimensions,
        b"".join(flat.numbers for flat in part.flats),
        b"".join(flat.codes for flat in part.flats),
        [len(flat) for flat in part.flats],
        bytes(part.centres.codes),
    )


def index_of(snapshot: Snapshot) -> Index:
    """The index that a snapshot was taken of. Raises ValueError where its parts do not fit together."""
    index = Index()
    index.keys.fill(snapshot.columns)
    for place, part in enumerate(snapshot.parts):
        index.names.append(part.name)
        index.parts.append(filled(part) if part.name else NO_PART)
        if part.name:
            index.places[part.name] = place
            index.touch(place)
        else:
            index.free.append(place)
    return index


def filled(part: Part) -> Flat | Cells:
    """One partition as it was."""
    numbers = np.frombuffer(part.numbers, np.int64)
    codes = np.frombuffer(part.codes, np.int8).reshape(len(numbers), part.num_dimensions)
    if part.centres:
        centres = np.frombuffer(part.centres, np.int8).reshape(-1, part.num_dimensions)
        return Cells(numbers, codes, centres, np.array(part.sizes))
    flat = Flat(part.num_dimensions)
    flat.add(numbers, codes)
    return flat


def save(file: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, whole or not at all. Raises OSError."""
    data = encode(snapshot)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            out.write(sha256(data).digest())
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def load(file: Path) -> Snapshot | None:
    """A snapshot; None where there is none that can be used, which the log then says."""
    try:
        snapshot = decode(sound(memoryview(file.read_bytes())))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        log.warning("the snapshot %s cannot be used (%s): the index is read from the log", file, error)
        return None
    if snapshot.version != VERSION:
        log.warning("the snapshot %s is of version %d: the index is read from the log", file, snapshot.version)
        return None
    return snapshot


def sound(data: memoryview) -> memoryview:
    """What follows the checksum. Raises ValueError where it is another."""
    if sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
        raise ValueError("its checksum is wrong")
    return data[DIGEST_BYTES:]
