"""A circuit breaker: after so many failures in a row a server is left alone for a while, then tried by one request."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Breaker:
    """Closed (all pass), open (none pass), half open (one passes and decides)."""

    __slots__ = ("clock", "failures", "limit", "open_s", "opened_at_s", "probing")

    def __init__(self, limit: int, open_s: float, clock: Callable[[], float] = monotonic) -> None:
        """`limit` failures in a row open it for `open_s` seconds."""
        self.limit, self.open_s, self.clock = limit, open_s, clock
        self.failures = 0
        self.opened_at_s: float | None = None
        self.probing = False

    def wait_s(self) -> float:
        """Seconds until a request may pass; 0 where one may now. A half-open breaker lets only its caller pass."""
        if self.opened_at_s is None:
            return 0.0
        left_s = self.opened_at_s + self.open_s - self.clock()
        if left_s > 0 or self.probing:
            return max(left_s, 0.001)
        self.probing = True
        return 0.0

    def is_open(self) -> bool:
        """Say whether requests are turned away, but for a probe."""
        return self.opened_at_s is not None

    def succeeded(self) -> None:
        """It answered: close."""
        self.failures, self.opened_at_s, self.probing = 0, None, False

    def failed(self) -> None:
        """It failed: open, where that was once too often or the probe."""
        self.failures += 1
        if self.probing or self.failures >= self.limit:
            self.opened_at_s = self.clock()
        self.probing = False

    def undecided(self) -> None:
        """The request ended without telling anything about it: another may probe."""
        self.probing = False
