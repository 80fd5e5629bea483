"""Rounding to nearest, and with the best of narrower steps: what needs no more than a glance at the inputs."""

from __future__ import annotations

from torch import Tensor

from stepwell.quantize.formats import Format
from stepwell.quantize.grids import Coded, fit, rounded

TRIES = 30


def nearest(weight: Tensor, format_: Format) -> Coded:
    """Steps from the ends of each group."""
    return rounded(fit(format_, weight), weight)


def clipped(weight: Tensor, format_: Format, importance: Tensor | None = None) -> Coded:
    """Steps with the smallest squared error, weighed by `importance` (width) or (rows, width)."""
    return rounded(fit(format_, weight, importance, tries=TRIES), weight)
