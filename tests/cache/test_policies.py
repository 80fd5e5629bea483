"""Policies keep to what is held, and the shadow simulation finds the cheapest."""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.cache.policies import MOST_TOUCHED, POLICIES, counted
from stepwell.cache.simulate import Event, Trace, compare, keep_tuned, pick, simulate
from stepwell.store.memory import Memory
from stepwell.store.order import Begin, Weight

each_policy = pytest.mark.parametrize("begin", POLICIES.values(), ids=POLICIES)
STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "drop", "victim"]), st.integers(0, 30), st.integers(1, 400)), max_size=200
)


def key(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def zipf(num: int, seed: int, *, power: float = 1.0, num_bytes: int = 1000, most: int = 2000) -> list[Event]:
    chance = random.Random(seed)
    shares = [1 / rank**power for rank in range(1, most + 1)]
    asked = chance.choices(range(most), shares, k=num)
    return [(key(each), Weight(num_bytes, 1.0)) for each in asked]


@each_policy
@given(steps=STEPS)
def test_a_victim_is_always_something_held(begin: Begin, steps: list[tuple[str, int, int]]) -> None:
    order, held = begin(2000), dict[bytes, int]()
    for what, number, num_bytes in steps:
        if what == "ask" and key(number) in held:
            order.touch(key(number))
        elif what == "ask":
            held[key(number)] = num_bytes
            order.add(key(number), Weight(num_bytes, number / 7))
        elif what == "drop" and key(number) in held:
            del held[key(number)]
            order.drop(key(number))
        elif what == "victim" and held:
            del held[order.victim()]
        while sum(held.values()) > 2000:
            del held[order.victim()]
    while held:
        del held[order.victim()]


def test_lru_is_what_it_says() -> None:
    events, held, missed = zipf(5000, 1), OrderedDict[bytes, None](), 0
    for asked, _ in events:
        missed += asked not in held
        held[asked] = None
        held.move_to_end(asked)
        if len(held) > 100:
            held.popitem(last=False)
    assert simulate(events, POLICIES["lru"], 100_000) == missed / len(events)


def test_by_frequency_beats_by_recency_on_skewed_demand() -> None:
    ratios = {name: simulate(zipf(30_000, 2), begin, 50_000) for name, begin in POLICIES.items()}
    assert all(ratios[name] < 0.9 * ratios["lru"] for name in ratios if name != "lru")


def test_a_scan_does_not_flush_what_is_popular() -> None:
    popular = [(key(number), Weight(1000, 1.0)) for number in range(40)]
    scan = [(key(1000 + number), Weight(1000, 1.0)) for number in range(2000)]
    events = [*popular * 10, *scan, *popular]
    before = simulate(events[:-40], POLICIES["lru"], 50_000) * (len(events) - 40)
    assert simulate(events, POLICIES["lru"], 50_000) * len(events) == pytest.approx(before + 40)
    for name in ("sieve", "s3_fifo", "w_tinylfu", "dearest"):
        missed = simulate(events, POLICIES[name], 50_000) * len(events)
        assert missed < 2040 + (40 if name == "sieve" else 10), name


def test_the_cost_aware_one_keeps_what_is_dear_for_its_bytes() -> None:
    dear, cheap = Weight(1000, 0.1), Weight(1000, 0.0001)
    events = [(key(number), dear if number % 2 else cheap) for number in range(100)] * 20
    assert simulate(events, POLICIES["dearest"], 60_000) < 0.06
    assert simulate(events, POLICIES["lru"], 60_000) == pytest.approx(1.0)


def test_nothing_asked_costs_nothing_and_what_is_too_large_is_not_kept() -> None:
    for begin in POLICIES.values():
        assert simulate([], begin, 1000) == 0.0
        assert simulate([(key(1), Weight(2000, 1.0))] * 3, begin, 1000) == 1.0


def test_a_trace_is_bounded_and_samples_keys_not_events() -> None:
    trace, events = Trace(limit=1024), zipf(50_000, 3)
    for event in events:
        trace.note(*event)
    assert len(trace.events) <= 1024
    assert trace.rate < 1
    of_kept = [event for event in events if event[0][-1] < trace.below]
    assert list(trace.events) == of_kept[-len(trace.events) :]


def test_a_sample_ranks_the_policies_as_the_whole_does() -> None:
    events, trace = zipf(60_000, 4, most=10_000), Trace(limit=16_384)
    for event in events:
        trace.note(*event)
    sampled = compare(trace, 500_000)
    whole = {name: simulate(events, begin, 500_000) for name, begin in POLICIES.items()}
    assert whole[pick(sampled)] <= 1.02 * min(whole.values())
    assert max(sampled, key=sampled.__getitem__) == "lru"


def test_the_policy_in_use_stays_unless_another_is_clearly_better() -> None:
    trace = Trace()
    for number in range(100):
        trace.note(key(number), Weight(1000, 1.0))
    assert pick(compare(trace, 50_000), used="s3_fifo") == "s3_fifo"
    assert pick(compare(Trace(), 50_000), used="sieve") == "sieve"


@pytest.mark.asyncio
async def test_a_memory_goes_by_the_policy_that_its_own_demand_wants() -> None:
    memory: Memory[int] = Memory(500_000)
    tuning = asyncio.create_task(keep_tuned(memory, every_s=0.01))
    await asyncio.sleep(0)
    by_recency = asked(memory, zipf(60_000, 5, most=10_000))
    before, order = set(memory.held), memory.order
    async with asyncio.timeout(20):
        while memory.order is order:  # noqa: ASYNC110 - a thread is simulating
            await asyncio.sleep(0.01)
    assert set(memory.held) == before
    assert asked(memory, zipf(60_000, 6, most=10_000)) < 0.9 * by_recency
    assert memory.used_bytes == sum(weight.num_bytes for _, _, weight in memory.held.values()) <= 500_000
    tuning.cancel()


def asked(memory: Memory[int], events: list[Event]) -> int:
    missed = 0
    for name, _ in events:
        if memory.get(name) is None:
            missed += 1
            memory.put(name, 1, math.inf, 600, usd=1.0)
    return missed


def test_counts_age_and_hits_that_wait_are_bounded() -> None:
    seen, often = counted(16 * 1024)
    for _ in range(40):
        seen(key(1))
    assert often(key(1)) == 15
    for number in range(2000):
        seen(key(number + 2))
    assert often(key(1)) < 15
    order = POLICIES["w_tinylfu"](1000)
    order.add(key(1), Weight(100))
    for _ in range(MOST_TOUCHED * 2):
        order.touch(key(1))
    order.add(key(2), Weight(100))
    assert order.victim() in {key(1), key(2)}
