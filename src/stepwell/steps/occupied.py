"""What processor time a request costs where several share an engine's threads: each its part, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time


class Occupied:
    """Shares out processor time among the requests that run at each moment (processor sharing).

    llama.cpp's threads tell nobody whose work they do. So what the process spends while requests run is theirs, but no
    more than `threads` can spend: rather too much, where the gateway is busy as well, than too little.
    """

    def __init__(
        self, threads: int, now_s: Callable[[], float] = perf_counter, cpu_s: Callable[[], float] = process_time
    ) -> None:
        self.threads, self.now_s, self.cpu_s = threads, now_s, cpu_s
        self.num_running = 0
        self.each_s = 0.0
        """Processor seconds that one request would have had, had it run since the beginning."""
        self.noted_s, self.noted_cpu_s = now_s(), cpu_s()

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
        """Share out what was spent since the last change."""
        now_s, cpu_s = self.now_s(), self.cpu_s()
        if self.num_running:
            spent_s = min(self.threads * (now_s - self.noted_s), cpu_s - self.noted_cpu_s)
            self.each_s += spent_s / self.num_running
        self.noted_s, self.noted_cpu_s = now_s, cpu_s
