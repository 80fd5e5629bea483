"""How many refused proposals are judged: all while the promise opens, then as many as there is use and money for."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from stepwell.quality.promise import NUM_LABELS

MOST_A_SECOND = 0.5
"""Refused proposals judged in one process, once it knows as many labels as a promise learns from."""
MEMORY_S = 60.0
"""Over about so long the recent rate is taken."""
HOUR_S = 3600.0


class Pace:
    """One process's rate of refused proposals, and what judging has cost in this hour."""

    def __init__(self, label: float, usd_hour: float, now_s: Callable[[], float] = monotonic) -> None:
        """`label`: share of the refused proposals that are judged at most; `usd_hour`: what judging may cost."""
        self.label, self.usd_hour, self.now_s = label, usd_hour, now_s
        self.recent, self.noted_s = 0.0, now_s()
        """Refused proposals, the older the less they count; and when the last one came."""
        self.hour, self.usd = 0, 0.0

    def share(self, num_labels: int) -> float:
        """Note one more refused proposal; the probability with which it shall be judged."""
        now_s = self.now_s()
        self.recent = 1 + self.recent * math.exp((self.noted_s - now_s) / MEMORY_S)
        self.noted_s = now_s
        if self.spent():
            return 0.0
        return self.label if num_labels <= NUM_LABELS else min(self.label, MOST_A_SECOND * MEMORY_S / self.recent)

    def spent(self) -> bool:
        """Whether this hour's money is gone."""
        hour = int(self.now_s() // HOUR_S)
        if hour != self.hour:
            self.hour, self.usd = hour, 0.0
        return self.usd >= self.usd_hour

    def pay(self, usd: float) -> None:
        """Note what one judgement cost."""
        self.spent()
        self.usd += usd
