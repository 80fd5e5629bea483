"""A training run as a process of its own, which outlives a gateway that dies: the next one finds it by its lock.

FOLDER/lock      held by the process for as long as it lives
FOLDER/pid       of the shell that waits for it, the leader of its group
FOLDER/said      its standard output, one JSON object a line
FOLDER/log.txt   its standard error
FOLDER/ended     its exit status, written by that shell
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stepwell.gateway import private

SHELL = 'nice -n 10 "$@"; echo $? > "$0.part" && mv "$0.part" "$0"'
"""Trains with what callers leave of the processor."""
SAID, LOG, ENDED = "said", "log.txt", "ended"
MOST_READ_BYTES = 1024 * 1024


class Process:
    """The run in a folder, whoever began it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str]) -> None:
        """Begin, or go on. What was said before stays."""
        private.folder(self.folder)
        (self.folder / ENDED).unlink(missing_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.set_inheritable(lock, True)  # noqa: FBT003 - its only argument
            with private.opened(self.folder / SAID, "ab") as said, private.opened(self.folder / LOG, "ab") as log:
                if said.tell():
                    said.write(b"\n")  # the line before may have been cut off
                self.child = subprocess.Popen(  # noqa: S603 - the operator's interpreter, and words of ours
                    ["/bin/sh", "-c", SHELL, str((self.folder / ENDED).absolute()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,
                    umask=0o077,
                )
            (self.folder / "pid").write_text(str(self.child.pid))
        finally:
            os.close(lock)

    def lives(self) -> bool:
        """Whether it is running."""
        if self.child is not None:
            self.child.poll()  # a child that nobody waits for stays in the table of processes
        try:
            lock = os.open(self.folder / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def status(self) -> int | None:
        """How it ended: an exit status; None where it was killed with its shell, or never began."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.folder / ENDED).read_text())
        return None

    def signal(self, how: signal.Signals) -> None:
        """Tell it, and what it began, to stop. Only a process that holds the lock is ours."""
        if self.lives():
            with suppress(FileNotFoundError, ValueError, ProcessLookupError):
                os.killpg(int((self.folder / "pid").read_text()), how)

    def said(self, start: int) -> tuple[list[bytes], int]:
        """The whole lines behind `start` bytes of its output, and where they end."""
        try:
            with (self.folder / SAID).open("rb") as said:
                said.seek(start)
                text = said.read(MOST_READ_BYTES)
        except FileNotFoundError:
            return [], start
        whole = text[: text.rfind(b"\n") + 1]
        if not whole and len(text) == MOST_READ_BYTES:
            return [], start + len(text)  # a line that long is none of ours
        return whole.splitlines(), start + len(whole)

    def everything(self) -> list[bytes]:
        """All lines of its output."""
        try:
            return (self.folder / SAID).read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def last_words(self) -> str:
        """The last line of its log that a person wrote."""
        try:
            lines = (self.folder / LOG).read_bytes()[-8192:].decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        told = [line for line in lines if line.startswith("stepwell: ")] or [line for line in lines if line.strip()]
        return told[-1].removeprefix("stepwell: ").strip() if told else ""
