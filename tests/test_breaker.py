"""The breaker as a state machine, with a clock of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepwell.breaker import Breaker


@given(st.lists(st.sampled_from(["ok", "bad", "wait"]), max_size=60))
def test_the_breaker_opens_after_so_many_failures_in_a_row_and_lets_one_probe_pass(events: list[str]) -> None:
    now = [0.0]
    breaker = Breaker(3, 10.0, lambda: now[0])
    in_a_row, open_until = 0, -1.0
    for each in events:
        if each == "wait":
            now[0] += 4
            continue
        passes = breaker.wait_s() == 0
        assert passes == (now[0] >= open_until)
        if not passes:
            continue
        if each == "ok":
            breaker.succeeded()
            in_a_row, open_until = 0, -1.0
        else:
            breaker.failed()
            in_a_row += 1
            if in_a_row >= 3:
                open_until = now[0] + 10
