"""Files of captured rows, a folder a tenant: one that is written to, hidden from readers, and those that are done.

A kill leaves at most a torn last line, in a file that nobody has read: whoever comes next cuts it off.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path
from time import time
from typing import BinaryIO
from urllib.parse import quote

from msgspec import Struct

DAY_S = 86_400
MOST_NAME_BYTES = 200
OPEN, DONE = ".part", ".jsonl"


class Limits(Struct, frozen=True):
    """When a file is done, and how much is kept; see `[capture]`."""

    shard_rows: int
    shard_s: float
    keep_days: float
    tenant_bytes: int


class Shards:
    """One tenant's files, as one process writes them."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.file: FileIO | None = None
        self.path = folder
        self.num_rows = self.num_files = 0
        self.begun_s = 0.0

    def write(self, lines: Iterable[bytes]) -> None:
        """Add rows; they are on the disk when this returns. Raises OSError, and then none of them counts."""
        file = self.file or self.begin()
        start, rows = file.tell(), list(lines)
        text = memoryview(b"".join(line + b"\n" for line in rows))
        try:
            while text:
                text = text[file.write(text) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(start)
                file.seek(start)
            raise
        self.num_rows += len(rows)
        self.seal_if_due()

    def begin(self) -> FileIO:
        """A new file, locked for as long as this process writes to it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.tidy()
        self.file = self.opened()
        while not self.path.exists():  # another process took it for a dead one's, before it was locked
            self.file.close()
            self.file = self.opened()
        self.num_rows, self.begun_s = 0, time()
        return self.file

    def opened(self) -> FileIO:
        """A file of a name that nobody had, and its lock."""
        self.num_files += 1
        self.path = self.folder / f"rows-{int(time() * 1000):013}-{os.getpid()}-{self.num_files}{OPEN}"
        opened = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(opened, fcntl.LOCK_EX)
        return os.fdopen(opened, "wb", buffering=0)

    def seal_if_due(self) -> None:
        """Give the file to readers where it is large or old enough."""
        if self.num_rows >= self.limits.shard_rows or time() - self.begun_s >= self.limits.shard_s:
            self.seal()

    def seal(self) -> None:
        """Give the file to readers."""
        file, self.file = self.file, None
        if file is not None:
            self.path.rename(self.path.with_suffix(DONE))
            file.close()

    def tidy(self) -> None:
        """Finish the files of those who died, and let go of what is too old or too much."""
        for path in sorted(self.folder.glob(f"*{OPEN}")):
            with suppress(FileNotFoundError):
                finish(path)
        done = [(path, path.stat()) for path in sorted(self.folder.glob(f"*{DONE}"))]
        total, oldest_s = sum(each.st_size for _, each in done), time() - self.limits.keep_days * DAY_S
        for path, each in done:
            if total > self.limits.tenant_bytes or each.st_mtime < oldest_s:
                path.unlink(missing_ok=True)
                total -= each.st_size


def finish(path: Path) -> None:
    """Give a dead process's file to readers, without its torn line; a living one's is left alone."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        whole = end_of_lines(file)
        file.truncate(whole)
        if whole:
            os.fsync(file.fileno())
            path.rename(path.with_suffix(DONE))
        else:
            path.unlink()


def end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line of a file ends."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - 65_536)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def folder_of(root: Path, tenant: str) -> Path:
    """A tenant's own folder, whatever it is called."""
    name = quote(tenant, safe="").replace(".", "%2E")
    if len(name) > MOST_NAME_BYTES:
        name = f"{name[:100]}-{sha256(tenant.encode()).hexdigest()}"
    return root / name
