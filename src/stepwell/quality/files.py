"""Small files that must last: written whole or not at all, and known by their hash."""

from __future__ import annotations

import os
from hashlib import file_digest
from pathlib import Path

from stepwell.errors import DistillError


def lay(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, to last."""
    incoming = path.with_name(f".{path.name}")
    with incoming.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    incoming.replace(path)


def append(path: Path, line: bytes) -> None:
    """Add a line, to last; half a line of a killed process goes."""
    whole = path.read_bytes().rpartition(b"\n")[0] + b"\n" if path.exists() and path.stat().st_size else b""
    lay(path, (whole if whole != b"\n" else b"") + line + b"\n")


def sha256_of(path: Path) -> str:
    """A file's SHA-256, in hex. Raises DistillError."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DistillError(f"cannot be read: {error.strerror}", file=str(path)) from error
