"""How many refused proposals are judged, by how many there are and what it costs."""

from __future__ import annotations

import pytest

from stepwell.quality.promise import NUM_LABELS
from stepwell.steps.pace import HOUR_S, MOST_A_SECOND, Pace


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def after(rate: float, *, label: float = 1.0, num_labels: int = NUM_LABELS + 1, seconds: float = 600.0) -> float:
    """The share after ten minutes at a rate."""
    clock = Clock()
    pace, share = Pace(label, 1.0, clock), 0.0
    for _ in range(int(rate * seconds)):
        clock.now_s += 1 / rate
        share = pace.share(num_labels)
    return share


@pytest.mark.parametrize("rate", [1.0, 5.0, 50.0])
def test_so_many_a_second_whatever_comes(rate: float) -> None:
    assert after(rate) == pytest.approx(MOST_A_SECOND / rate, rel=0.02)


def test_no_bound_where_few_come_or_few_labels_are_known() -> None:
    assert after(0.2) == 1.0
    assert after(50.0, num_labels=NUM_LABELS) == 1.0
    assert after(50.0, label=0.5, num_labels=NUM_LABELS) == 0.5
    assert after(50.0, label=0.001) == 0.001


def test_a_new_hour_has_new_money() -> None:
    clock = Clock()
    pace = Pace(1.0, 1.0, clock)
    pace.pay(0.99)
    assert pace.share(0) == 1.0
    pace.pay(0.01)
    assert pace.spent()
    assert pace.share(0) == 0.0
    clock.now_s += HOUR_S
    assert pace.share(0) == 1.0


def test_a_judge_that_costs_nothing_never_stops() -> None:
    pace = Pace(1.0, 0.01, Clock())
    for _ in range(100):
        pace.pay(0.0)
    assert not pace.spent()
