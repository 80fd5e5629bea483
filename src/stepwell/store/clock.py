"""What expires when: the time of day, as seen by one process whose clock may be set.

A clock that is set back is carried on from before: nothing expired comes back, nothing kept is lost. One that is set
forward is believed: at worst something is asked for anew.
"""

from __future__ import annotations

import sys
import time
from functools import partial

TOLERATED_S = 1.0
"""Less than this is how clocks are corrected, not set."""
FOREVER_S = 1e10


class Clock:
    """Seconds since 1970."""

    __slots__ = ("began_s",)

    def __init__(self) -> None:
        self.began_s = -running_s() + time.time()  # in this order it is never behind

    def now_s(self) -> float:
        """The time of day: asked twice for every hit, so in few calls."""
        system_s, carried_on_s = time.time(), running_s() + self.began_s
        return carried_on_s if carried_on_s - system_s > TOLERATED_S else system_s

    def ahead_s(self) -> float:
        """How far this clock is ahead of the system's: 0 unless that was set back since."""
        return self.both_s()[1]

    def both_s(self) -> tuple[float, float]:
        """`now_s` and `ahead_s`."""
        system_s, carried_on_s = time.time(), running_s() + self.began_s
        ahead_s = carried_on_s - system_s
        return (carried_on_s, ahead_s) if ahead_s > TOLERATED_S else (system_s, 0.0)


if sys.platform == "linux":
    running_s = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    """Seconds since some moment; a machine's sleep counts where the system can tell."""
else:
    running_s = time.monotonic


def left_s(expires_s: float) -> float:
    """Seconds until then, for a server with a clock of its own: from 0 to three centuries, 0 where it is no number."""
    left = expires_s - time.time()
    return min(max(left, 0.0), FOREVER_S) if left == left else 0.0  # noqa: PLR0124 - not a number


def expiry_s(left_s: float) -> float:
    """When that is, by this process's clock."""
    return time.time() + left_s
