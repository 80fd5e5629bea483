"""What processor time a request costs where several share an engine's threads: each its part, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter


class Occupied:
    """Shares out `threads` among the requests that run at each moment (processor sharing).

    Time on the clock, not time of the processor: llama.cpp's threads tell nobody whose work they do, and a thread that
    is set aside is paid for. On a machine that is busy with something else as well it says too much rather than too
    little.
    """

    def __init__(self, threads: int, now_s: Callable[[], float] = perf_counter) -> None:
        self.threads, self.now_s = threads, now_s
        self.num_running = 0
        self.each_s = 0.0
        """Processor seconds that one request would have had, had it run since the beginning."""
        self.noted_s = now_s()

    def begin(self) -> float:
        """A request begins; `end` wants back what this gives."""
        self.note()
        self.num_running += 1
        return self.each_s

    def end(self, begun: float) -> float:
        """A request ends: its processor seconds."""
        self.note()
        self.num_running -= 1
        return self.each_s - begun

    def note(self) -> None:
        """Share out the time since the last change."""
        now_s = self.now_s()
        if self.num_running:
            self.each_s += self.threads * (now_s - self.noted_s) / self.num_running
        self.noted_s = now_s
