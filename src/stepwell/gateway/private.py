"""What callers gave us to keep is for the gateway's own user alone: folders 0700, files 0600."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Literal


def folder(path: Path) -> None:
    """Make a folder, with those above it, where it is not there. Raises OSError."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)


def opened(path: Path, mode: Literal["ab", "wb"]) -> BinaryIO:
    """A file to write; a new one is nobody else's to read. Raises OSError."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))
