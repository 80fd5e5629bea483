"""An always-valid test of paired differences: one may look after every pair, and stop whenever one likes.

Each pair is +1 (only the student was right), -1 (only the teacher) or 0. Somebody who bets against "the mean is at
least m" gains by a pair d the factor 1 - eta (d - m): fair or unfavourable where the claim is true, so that the capital
passes 1/alpha with probability at most alpha, ever (Ville 1939; betting as in Waudby-Smith and Ramdas, JRSS B 86,
2024). The capital is the mean over a grid of stakes eta, and so depends on the three counts alone, in whatever order
and from whatever process the pairs came.
"""

from __future__ import annotations

import math

from msgspec import Struct

STAKES = tuple(0.49 * 0.7**power for power in range(14))
"""From 0.49 down to 0.005: below 1/2 no pair can ruin a bet on any mean from -1 to 1."""
HALVINGS = 50


class Counts(Struct, frozen=True, gc=False):
    """Pairs so far: only the student right, only the teacher, and the rest."""

    gains: int = 0
    losses: int = 0
    ties: int = 0

    @property
    def num(self) -> int:
        """All pairs."""
        return self.gains + self.losses + self.ties

    @property
    def mean(self) -> float:
        """Student minus teacher; 0 where there are none."""
        return (self.gains - self.losses) / self.num if self.num else 0.0


def log_capital(counts: Counts, mean: float) -> float:
    """Logarithm of what a bet against "the true mean is at least `mean`" has made of 1."""
    logs = [
        counts.gains * math.log1p(stake * (mean - 1.0))
        + counts.losses * math.log1p(stake * (mean + 1.0))
        + counts.ties * math.log1p(stake * mean)
        for stake in STAKES
    ]
    most = max(logs)
    return most + math.log(sum(math.exp(each - most) for each in logs) / len(logs))


def turned(counts: Counts) -> Counts:
    """Teacher and student in each other's place."""
    return Counts(counts.losses, counts.gains, counts.ties)


def is_worse(counts: Counts, margin: float, alpha: float) -> bool:
    """Whether it is shown that the student is worse by more than `margin`."""
    return log_capital(counts, -margin) >= -math.log(alpha)


def is_no_worse(counts: Counts, margin: float, alpha: float) -> bool:
    """Whether it is shown that the student is worse by less than `margin`."""
    return log_capital(turned(counts), margin) >= -math.log(alpha)


def bounds(counts: Counts, alpha: float) -> tuple[float, float]:
    """A confidence sequence: each bound is passed, at any time, with probability at most `alpha`."""
    return -upper(turned(counts), alpha), upper(counts, alpha)


def upper(counts: Counts, alpha: float) -> float:
    """The smallest mean against which the bet has won; 1 where there is none."""
    low, high = -1.0, 1.0
    if log_capital(counts, high) < -math.log(alpha):
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if log_capital(counts, middle) >= -math.log(alpha) else (middle, high)
    return high
