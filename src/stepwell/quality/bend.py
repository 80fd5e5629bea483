"""How the log odds of a regression bend to true ones.

Most labels are of refused proposals, so the regression is surest where least is served: among the likely answers it is
some way off, by much the same curve on every set of questions that was measured. That curve is what is believed before;
labels move it. Platt's scaling (1999) with two bends instead of a slope.
"""

from __future__ import annotations

import numpy as np

from stepwell.quality.logistic import Array, fit
from stepwell.quality.promise import KNOTS, Bend

LEAST_SLOPE = 0.2
"""The curve rises everywhere: a likelier answer stays a likelier one."""


def bent_all(odds: Array, bend: Bend) -> Array:
    """True log odds of many."""
    bends: Array = odds + columns(odds) @ np.array(bend)
    return bends


def columns(odds: Array) -> Array:
    """What `bend` multiplies, shape (rows, 3)."""
    return np.stack([np.ones_like(odds), *(np.maximum(0, odds - knot) for knot in KNOTS)], axis=1)


def bending(odds: Array, right: Array, weights: Array, believed: Bend, firmness: float) -> Bend:
    """The most probable curve; `firmness` is the precision with which each of its numbers is believed beforehand."""
    mean = np.array(believed)
    found = fit(columns(odds), right, weights, mean, np.full(3, firmness), start=odds)
    first = max(LEAST_SLOPE - 1, float(found[1]))
    return float(found[0]), first, max(LEAST_SLOPE - 1 - first, float(found[2]))
