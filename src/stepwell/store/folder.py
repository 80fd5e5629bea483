"""Objects in a folder: written beside their place, synced, moved there in one step, one process at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import time

from stepwell.alone import alone
from stepwell.errors import StoreError
from stepwell.store.objects import MAX_OBJECT_BYTES, Headers, Held, checked

INCOMING = ".incoming"
"""The one file that is written before it is moved; what a killed process left in it, the next one overwrites."""
LOCK = ".stepwell"


@dataclass(frozen=True, slots=True)
class Folder:
    """Objects in a folder, which is made when the first is put."""

    root: Path

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    def get(self, key: str) -> Held | None:
        """The object, or None where there is none. Raises StoreError."""
        path = self.root / checked(key)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_OBJECT_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(data) > MAX_OBJECT_BYTES:
            raise StoreError(f"{path} is larger than {MAX_OBJECT_BYTES} bytes: nothing of ours")
        return Held(data, tag(data))

    def create(self, key: str, data: bytes, _headers: Headers) -> bool:
        """Put an object where there is none. Raises StoreError."""
        path = self.root / checked(key)
        with self.writing(key):
            if path.exists():
                return False
            self.lay(path, data)
        return True

    def swap(self, key: str, data: bytes, _headers: Headers, tag: str | None) -> bool:
        """Put an object in the place of the one with `tag`. Raises StoreError."""
        path = self.root / checked(key)
        with self.writing(key):
            held = self.get(key)
            if (held.tag if held else None) != tag:
                return False
            self.lay(path, data, after_s=int(path.stat().st_mtime) + 1 if held else 0)
        return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of each object of one folder within. Raises StoreError."""
        try:
            found = sorted(path for path in (self.root / prefix).glob("*") if path.is_file())
            return {path.relative_to(self.root).as_posix(): path.stat().st_size for path in found}
        except OSError as error:
            raise StoreError(f"{self.root / prefix} cannot be listed: {error.strerror or error}") from error

    @contextmanager
    def writing(self, key: str) -> Iterator[None]:
        """Be the only process that writes here. Raises StoreError, also for what goes wrong within."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with alone(self.root / LOCK):
                yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.root} is in use by another process for too long ({error}); try again") from error
        except OSError as error:
            raise StoreError(f"{self.root / key} cannot be written: {error.strerror or error}") from error

    def lay(self, path: Path, data: bytes, *, after_s: int = 0) -> None:
        """Write, sync and move into place.

        Web servers make the ETag out of length and second of change, so a new object is later than the one it replaces.
        """
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            sync(path.parent.parent)
        incoming = self.root / INCOMING
        with incoming.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if after_s > time():
            os.utime(incoming, (after_s, after_s))
        incoming.replace(path)
        sync(path.parent)


def tag(data: bytes) -> str:
    """The tag of some bytes: their hash."""
    return f'"{sha256(data).hexdigest()}"'


def sync(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
