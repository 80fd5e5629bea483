"""The clock of a store: a system clock that is set does no harm."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.store.clock import FOREVER_S, Clock, left_s


def test_a_clock_set_back_is_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = Clock(), time.time
    before_s = clock.now_s()
    assert clock.ahead_s() == 0.0
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    assert before_s <= clock.now_s() <= before_s + 60
    assert clock.ahead_s() == pytest.approx(7200, abs=1)
    assert clock.both_s()[0] - clock.both_s()[1] == pytest.approx(time.time(), abs=1)


def test_a_clock_set_forward_is_believed_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = Clock(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    assert clock.now_s() == pytest.approx(real() + 7200, abs=1)
    assert clock.ahead_s() == 0.0
    monkeypatch.setattr(time, "time", real)
    assert clock.now_s() == pytest.approx(real(), abs=1)


def test_a_small_correction_is_none_of_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = Clock(), time.time
    monkeypatch.setattr(time, "time", lambda: real() - 0.5)
    assert clock.ahead_s() == 0.0


@given(st.floats())
def test_what_is_left_is_always_a_time_a_server_takes(expires_s: float) -> None:
    assert 0.0 <= left_s(expires_s) <= FOREVER_S
