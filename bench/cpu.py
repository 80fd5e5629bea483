"""What a process and all its children have cost so far: CPU seconds and memory, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of a process tree, all threads; to the nanosecond where the kernel keeps schedstat, else to 10 ms."""
    return sum(spent_s(each) for each in tree(pid))


def spent_s(pid: int) -> float:
    """CPU seconds of one process."""
    try:
        tasks = [int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()]
    except (OSError, ValueError, IndexError):
        tasks = []
    return sum(tasks) / 1e9 if any(tasks) else ticks_s(pid)


def ticks_s(pid: int) -> float:
    """CPU seconds of one process by the clock tick."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mb(pid: int) -> float:
    """Resident memory of a process tree, in MB (10^6 bytes)."""
    total = 0
    for each in tree(pid):
        with suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6


def machine() -> str:
    """The processor and how many there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return f"{os.cpu_count()} x {names[0] if names else 'unknown processor'}"
