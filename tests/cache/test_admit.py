"""Nobody's answers push out everybody's."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.cache.admit import Allowance, fairly
from stepwell.cache.policies import POLICIES
from stepwell.store.order import Begin, Order, Weight

each_policy = pytest.mark.parametrize("begin", POLICIES.values(), ids=POLICIES)
LIMIT = 100_000


def key(who: str, number: int) -> bytes:
    return sha256(f"{who} {number}".encode()).digest()


class Room:
    """As small as a memory can be."""

    def __init__(self, order: Order) -> None:
        self.order, self.held = order, dict[bytes, Weight]()

    def put(self, name: bytes, weight: Weight) -> None:
        self.held[name] = weight
        self.order.add(name, weight)
        while sum(each.num_bytes for each in self.held.values()) > LIMIT:
            del self.held[self.order.victim()]

    def bytes_of(self, principal: bytes) -> int:
        return sum(each.num_bytes for each in self.held.values() if each.principal == principal)


@each_policy
def test_a_flood_of_one_principal_pushes_out_nobody_else(begin: Begin) -> None:
    room = Room(fairly(begin)(LIMIT))
    names = [key("good", number) for number in range(60)]
    for number, name in enumerate(names):
        room.put(name, Weight(1000, 0.001, principal=b"good %d" % (number % 10), partition=b"all"))
    for number in range(2000):
        room.put(key("bad", number), Weight(1000, 100.0, principal=b"bad", partition=b"all"))
        if number % 3 == 0 and key("bad", number) in room.held:
            room.order.touch(key("bad", number))
    assert all(name in room.held for name in names)
    assert room.bytes_of(b"bad") == 40_000, "what nobody else wants may be used"


@each_policy
def test_a_crowd_of_principals_in_one_partition_pushes_out_no_other_partition(begin: Begin) -> None:
    room = Room(fairly(begin)(LIMIT))
    names = [key("good", number) for number in range(20)]
    for name in names:
        room.put(name, Weight(1000, 0.001, principal=b"good", partition=b"theirs"))
    for number in range(2000):
        room.put(key("bad", number), Weight(1000, 100.0, principal=b"bad %d" % number, partition=b"crowd"))
    assert all(name in room.held for name in names)


@each_policy
def test_alone_one_may_fill_everything_in_the_policys_own_order(begin: Begin) -> None:
    plain, fair = Room(begin(LIMIT)), Room(fairly(begin)(LIMIT))
    for number in range(500):
        for room in (plain, fair):
            room.put(key("one", number), Weight(1000, 1.0, principal=b"one", partition=b"one"))
            if key("one", 7) in room.held:
                room.order.touch(key("one", 7))
    assert plain.held == fair.held


STEPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20), st.sampled_from(["put", "drop", "touch"])))


@each_policy
@given(steps=STEPS)
def test_books_are_kept_whatever_happens(begin: Begin, steps: list[tuple[int, int, str]]) -> None:
    room = Room(fairly(begin, 0.1)(LIMIT))
    for who, number, what in steps:
        name = key(str(who), number)
        if what == "put" and name not in room.held:
            room.put(name, Weight(9000, number, principal=b"%d" % who if who else b"", partition=b"p%d" % (who % 2)))
        elif what == "drop" and name in room.held:
            room.order.drop(name)
            del room.held[name]
        elif name in room.held:
            room.order.touch(name)
    while room.held:
        del room.held[room.order.victim()]


def test_an_allowance_fills_up_again_and_forgets_who_left() -> None:
    allowance = Allowance(1000, window_s=10.0)
    assert allowance.take(b"a", 800, now_s=0.0)
    assert not allowance.take(b"a", 300, now_s=0.0)
    assert allowance.take(b"b", 1000, now_s=0.0)
    assert allowance.take(b"a", 300, now_s=1.0)
    assert not allowance.take(b"a", 100, now_s=1.0)
    assert not allowance.take(b"a", 1001, now_s=1000.0)
    assert allowance.take(b"c", 1, now_s=1000.0)
    assert set(allowance.taken) == {b"c"}
