"""Freshness: lifetimes, windows, early refresh, and what a caller may tighten."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.cache.fresh import ANYTHING, Terms, Wish, early_s, is_early, is_outage, lifetime_s, state, wish
from stepwell.errors import BadRequest, EngineBadReply, EngineRefusal, EngineTimeout, EngineUnavailable

TERMS = Terms(100.0, swr_s=10.0, sie_s=50.0)
MADE_S, STALE_S = 1000.0, 1100.0
TIMES = st.floats(0, 1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("now_s", "how"),
    [
        (1000, "fresh"),
        (1099, "fresh"),
        (1100, "stale"),
        (1109, "stale"),
        (1110, "spare"),
        (1149, "spare"),
        (1150, "old"),
    ],
)
def test_an_answer_is_fresh_then_stale_then_spare_then_old(now_s: float, how: str) -> None:
    assert state(MADE_S, STALE_S, now_s, TERMS, ANYTHING) == how


def test_without_windows_nothing_stale_is_given() -> None:
    assert state(MADE_S, STALE_S, STALE_S, Terms(100.0), ANYTHING) == "old"


def test_an_answer_from_the_future_is_not_believed_and_a_clock_that_differs_is() -> None:
    assert state(MADE_S, STALE_S, MADE_S - 30, TERMS, ANYTHING) == "fresh"
    assert state(MADE_S, STALE_S, MADE_S - 3600, TERMS, ANYTHING) == "old"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"no-store", Wish(no_store=True)),
        (b"No-Cache , foo", Wish(no_cache=True)),
        (b"max-age=5", Wish(max_age_s=5, max_stale_s=0)),
        (b"max-age=5, max-stale=3", Wish(max_age_s=5, max_stale_s=3)),
        (b"max-age=5, max-stale", Wish(max_age_s=5)),
        (b'min-fresh="7"', Wish(min_fresh_s=7)),
        (b"stale-if-error=0", Wish(if_error_s=0)),
        (b"stale-while-revalidate=4", Wish(max_stale_s=4)),
        (b"max-age=-1", Wish()),
        (b"max-age=1e9", Wish()),
        (b"max-age=\xb2", Wish()),
        (b"max-age", Wish()),
        (b",,=,", Wish()),
        (b"max-age=99999999999999999999999", Wish()),
    ],
)
def test_what_a_caller_says(header: bytes, wanted: Wish) -> None:
    assert wish(header) == wanted


@given(st.binary(max_size=200))
def test_no_header_breaks_it(header: bytes) -> None:
    wish(header)


RANKS = {"fresh": 0, "stale": 1, "spare": 2, "unwanted": 3, "old": 3}


@given(st.tuples(TIMES, TIMES, TIMES), st.builds(Terms, TIMES, TIMES, TIMES), st.binary(max_size=40), st.data())
def test_a_caller_may_only_tighten(
    times: tuple[float, float, float], terms: Terms, noise: bytes, data: st.DataObject
) -> None:
    made_s, life_s, now_s = times
    names = ("no-cache", "no-store", "max-age=%d", "min-fresh=%d", "max-stale=%d", "stale-if-error=%d")
    parts = data.draw(st.lists(st.sampled_from(names)))
    said = b", ".join([*(part.replace("%d", str(data.draw(st.integers(0, 10**6)))).encode() for part in parts), noise])
    plain = state(made_s, made_s + life_s, now_s, terms, ANYTHING)
    assert RANKS[state(made_s, made_s + life_s, now_s, terms, wish(said))] >= RANKS[plain]


@given(st.binary(min_size=32, max_size=32))
def test_a_lifetime_is_the_same_for_a_key_everywhere_and_within_a_tenth(exact: bytes) -> None:
    assert lifetime_s(TERMS, exact) == lifetime_s(TERMS, exact)
    assert 90.0 <= lifetime_s(TERMS, exact) <= 110.0


def test_lifetimes_differ() -> None:
    keys = [random.Random(at).randbytes(32) for at in range(1000)]
    lives = sorted(lifetime_s(TERMS, each) for each in keys)
    assert lives[0] < 91
    assert lives[-1] > 109
    assert abs(lives[500] - 100) < 2


def test_xfetch_is_as_likely_as_the_paper_says() -> None:
    chance = random.Random(1)
    delta_s, left_s = 2.0, 3.0
    drawn = sum(is_early(100.0, 100.0 - left_s, delta_s, 1.0, 1 - chance.random()) for _ in range(20_000)) / 20_000
    assert abs(drawn - math.exp(-left_s / delta_s)) < 0.015


@given(st.floats(0.001, 1e3), st.floats(0.1, 4), st.floats(1e-5, 1.0))
def test_before_its_early_time_an_answer_is_surely_not_early(delta_s: float, beta: float, chance: float) -> None:
    stale_s = 1e6
    before_s = early_s(0.0, stale_s, delta_s, beta) - 0.001
    assert not is_early(stale_s, before_s, delta_s, beta, chance)


def test_it_is_never_early_where_that_is_turned_off() -> None:
    assert early_s(0.0, 100.0, 5.0, 0.0) == 100.0


def test_which_failures_are_the_engines() -> None:
    assert all(
        is_outage(each) for each in (EngineUnavailable("x"), EngineTimeout("x"), EngineBadReply("x"), KeyError())
    )
    assert is_outage(EngineRefusal("x", engine="e", status=503, body=b""))
    assert is_outage(EngineRefusal("x", engine="e", status=429, body=b""))
    assert not is_outage(EngineRefusal("x", engine="e", status=400, body=b""))
    assert not is_outage(BadRequest("x"))
    assert not is_outage(None)
