"""What every Store promises, on every backend, against real servers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.drive import Drive
from stepwell.protocols import Store
from store.places import KINDS, Place, place_of

HOUR_S = 3600.0


@pytest.fixture(params=KINDS)
def place(request: Any, tmp_path: Path) -> Place:
    return place_of(request.param, request, tmp_path)


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def other(place: Place) -> AsyncIterator[Store]:
    """The same place, opened once more."""
    store = place.open()
    yield store
    await store.close()


@pytest.fixture
def key() -> bytes:
    return token_bytes(32)


def later(seconds: float = HOUR_S) -> float:
    return time.time() + seconds


async def value(store: Store, key: bytes) -> bytes | None:
    found = await store.get(key)
    return None if found is None else found[0]


async def until(store: Store, key: bytes, expected: bytes | None) -> None:
    """What another process put is seen within the flush interval."""
    end_s = time.monotonic() + 10
    while await value(store, key) != expected:
        assert time.monotonic() < end_s
        await asyncio.sleep(0.005)


async def everything(store: Store, log: bytes, position: int = 0) -> list[tuple[int, bytes]]:
    rows: list[tuple[int, bytes]] = []
    while found := await store.since(log, rows[-1][0] if rows else position, 7):
        rows += found
    return rows


async def logged(store: Store, log: bytes, count: int) -> list[tuple[int, bytes]]:
    """The rows of a log, once there are so many."""
    end_s = time.monotonic() + 10
    while len(rows := await everything(store, log)) < count:
        assert time.monotonic() < end_s
        await asyncio.sleep(0.005)
    return rows


# --- values


async def test_a_value_is_there_at_once_until_it_is_replaced_or_dropped(store: Store, key: bytes) -> None:
    assert await store.get(key) is None
    expires_s = later()
    await store.put(key, b"one", expires_s)
    found = await store.get(key)
    assert found is not None
    assert found[0] == b"one"
    assert found[1] == pytest.approx(expires_s, abs=1)
    await store.put(key, b"two", later())
    assert await value(store, key) == b"two"
    await store.drop(key)
    assert await store.get(key) is None
    await store.drop(key)


async def test_what_one_puts_and_drops_the_other_sees(store: Store, other: Store, key: bytes) -> None:
    await store.put(key, b"one", later())
    await until(other, key, b"one")
    await other.drop(key)
    assert await store.get(key) is None


@pytest.mark.parametrize("name", [b"", b"\0", b"\xff" * 200, b"a:b*[c]%d", "ключ".encode()])
@pytest.mark.parametrize("body", [b"", b"\0\r\n$-1", bytes(range(256)) * 4096])
async def test_any_bytes_will_do(store: Store, key: bytes, name: bytes, body: bytes) -> None:
    await store.put(key + name, body, later())
    assert await value(store, key + name) == body
    assert await value(store, key + name + b"\0") is None


async def test_what_expires_is_gone_and_what_has_expired_replaces_what_was_there(store: Store, key: bytes) -> None:
    await store.put(key, b"short", later(0.3))
    assert await value(store, key) == b"short"
    await asyncio.sleep(0.35)
    assert await store.get(key) is None
    await store.put(key, b"long", later())
    await store.put(key, b"over", later(-1))
    assert await store.get(key) is None
    await store.put(key, b"long", later())
    await store.put(key, b"over", later(-1), await store.lease(key, 9) or 0)
    assert await store.get(key) is None


@pytest.mark.parametrize("expires_s", [math.inf, 4e9, 1e300])
async def test_for_ever_is_long(store: Store, key: bytes, expires_s: float) -> None:
    await store.put(key, b"v", expires_s)
    await store.append(key, b"row", expires_s)
    assert await value(store, key) == b"v"
    assert len(await logged(store, key, 1)) == 1


@pytest.mark.parametrize("expires_s", [math.nan, -math.inf, 0.0, -1e300])
async def test_a_time_that_is_none_is_over(store: Store, key: bytes, expires_s: float) -> None:
    await store.put(key, b"v", expires_s)
    await store.append(key, b"row", expires_s)
    await store.append(key, b"last", later())
    assert await store.get(key) is None
    assert [row for _, row in await logged(store, key, 1)] == [b"last"]


# --- leases and fences


async def test_one_holds_a_lease_until_it_ends(store: Store, other: Store, key: bytes) -> None:
    first = await store.lease(key, 0.4)
    assert first is not None
    assert await store.lease(key, 9) is None
    assert await other.lease(key, 9) is None
    await asyncio.sleep(0.45)
    second = await other.lease(key, 9)
    assert second is not None
    assert second > first
    await store.release(key, first)
    assert await store.lease(key, 9) is None
    await other.release(key, second)
    third = await store.lease(key, 9)
    assert third is not None
    assert third > second


async def test_an_older_fence_never_wins(store: Store, other: Store, key: bytes) -> None:
    old = await store.lease(key, 0.2)
    assert old is not None
    await store.put(key, b"by the holder", later(), old)
    assert await value(store, key) == b"by the holder"
    await asyncio.sleep(0.25)
    await store.put(key, b"late, but nobody else came", later(), old)
    assert await value(other, key) == b"late, but nobody else came"
    new = await other.lease(key, 9)
    assert new is not None
    await store.put(key, b"too late", later(), old)
    assert await value(store, key) == b"late, but nobody else came"
    await other.put(key, b"by the new holder", later(), new)
    await other.release(key, new)
    await store.put(key, b"still too late", later(), old)
    await store.put(key, b"never granted", later(), new + 1)
    assert await value(store, key) == await value(other, key) == b"by the new holder"
    await store.put(key, b"without", later())
    await until(other, key, b"without")


async def test_of_many_who_ask_at_once_one_gets_the_lease(store: Store, other: Store, key: bytes) -> None:
    asked = [each.lease(key, 9) for _ in range(50) for each in (store, other)]
    fences = await asyncio.gather(*asked)
    assert len([fence for fence in fences if fence is not None]) == 1


async def test_fences_rise_over_reopening(place: Place, key: bytes) -> None:
    last = 0
    for _ in range(3):
        store = place.open()
        fence = await store.lease(key, 60)
        assert fence is not None
        assert fence > last
        last = fence
        await store.release(key, fence)
        await store.close()


# --- logs


async def test_a_log_gives_its_rows_in_order_from_any_position(store: Store, key: bytes) -> None:
    sent = [b"row %d \0\xff" % number for number in range(40)]
    for row in sent:
        await store.append(key, row, later())
        await store.append(key + b"other", b"another log", later())
    rows = await logged(store, key, 40)
    assert [row for _, row in rows] == sent
    positions = [position for position, _ in rows]
    assert positions == sorted(set(positions))
    assert positions[0] > 0
    assert await store.since(key, positions[9], 3) == rows[10:13]
    assert await store.since(key, positions[-1], 3) == []
    assert await store.since(key + b"none", 0, 3) == []


async def test_rows_that_expired_are_left_out(store: Store, key: bytes) -> None:
    for number in range(60):
        await store.append(key, b"%d" % number, later(0.3 if number % 20 else HOUR_S))
    await logged(store, key, 3)
    await asyncio.sleep(0.4)
    assert [row for _, row in await everything(store, key)] == [b"0", b"20", b"40"]
    assert [row for _, row in await store.since(key, 0, 1)] == [b"0"]


async def test_no_row_appears_in_front_of_one_that_was_read(place: Place, key: bytes) -> None:
    writers = [place.open() for _ in range(4)]
    reader = place.open()
    read: list[tuple[int, bytes]] = []

    async def write(store: Store, name: int) -> None:
        for number in range(60):
            await store.append(key, b"%d %d" % (name, number), later())
            if number % 7 == name:
                await asyncio.sleep(0)

    async def follow() -> None:
        while len(read) < 240:
            read.extend(await reader.since(key, read[-1][0] if read else 0, 5))
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asyncio.gather(follow(), *(write(store, name) for name, store in enumerate(writers))), 30)
    assert read == await everything(reader, key)
    for name in range(4):
        own = [row for _, row in read if row.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, number) for number in range(60)]
    for store in {id(store): store for store in (*writers, reader)}.values():
        await store.close()


# --- all of it

OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3), st.binary(max_size=9)),
    st.tuples(st.just("put over"), st.integers(0, 3), st.binary(max_size=9)),
    st.tuples(st.sampled_from(["get", "drop", "lease", "short lease", "release"]), st.integers(0, 3), st.none()),
    st.tuples(st.just("put fenced"), st.integers(0, 3), st.integers(0, 9)),
    st.tuples(st.just("append"), st.integers(0, 1), st.binary(max_size=9)),
    st.tuples(st.just("append over"), st.integers(0, 1), st.binary(max_size=9)),
)


class Model:
    """What a store does, in a few dictionaries."""

    def __init__(self, store: Store) -> None:
        self.store, self.mark = store, token_bytes(8)
        self.values: dict[bytes, bytes] = {}
        self.fences: dict[bytes, list[int]] = {}
        self.held: set[bytes] = set()
        self.logs: dict[bytes, list[bytes]] = {}

    async def do(self, what: str, key: bytes, more: Any) -> None:
        over = what.endswith("over")
        expires_s = later(-5 if over else HOUR_S)
        if what.startswith("append"):
            await self.store.append(key, more, expires_s)
            self.logs.setdefault(key, []).extend([] if over else [more])
        elif what in ("put", "put over"):
            await self.store.put(key, more, expires_s)
            self.values |= {key: more}
        elif what in ("lease", "short lease"):
            await self.lease(key, short=what == "short lease")
        elif key in self.fences:
            await self.end_or_put(what, key, more)
        if what == "drop":
            await self.store.drop(key)
        if what in ("drop", "put over"):
            self.values.pop(key, None)

    async def lease(self, key: bytes, *, short: bool) -> None:
        fence = await self.store.lease(key, 0.001 if short else 60)
        assert (fence is None) == (key in self.held)
        if fence is not None:
            assert fence > max(self.fences.setdefault(key, [0]))
            self.fences[key].append(fence)
            self.held |= set() if short else {key}
            await asyncio.sleep(0.003)

    async def end_or_put(self, what: str, key: bytes, more: int) -> None:
        fences = self.fences[key]
        if what == "release":
            await self.store.release(key, fences[-1])
            self.held.discard(key)
        elif what == "put fenced":
            fence = fences[more % len(fences)] or 1
            await self.store.put(key, b"by %d" % fence, later(), fence)
            self.values |= {key: b"by %d" % fence} if fence == fences[-1] else {}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, max_size=30))
async def test_any_sequence_does_what_a_few_dictionaries_would(store: Store, operations: list[Any]) -> None:
    model = Model(store)
    for what, number, more in operations:
        key = model.mark + b"%d" % number
        await model.do(what, key, more)
        assert await value(store, key) == model.values.get(key)
    for log, rows in model.logs.items():
        assert [row for _, row in await logged(store, log, len(rows))] == rows


# --- how it is asked


async def test_many_ask_at_once(store: Store, key: bytes) -> None:
    keys = [key + b"%d" % number for number in range(500)]
    await asyncio.gather(*(store.put(each, each, later()) for each in keys))
    assert await asyncio.gather(*(value(store, each) for each in keys)) == keys
    fences = await asyncio.gather(*(store.lease(each, 9) for each in keys))
    assert all(fences)
    await asyncio.gather(*(store.drop(each) for each in keys[::2]))
    left = await asyncio.gather(*(value(store, each) for each in keys))
    assert left == [None if number % 2 == 0 else each for number, each in enumerate(keys)]


async def test_a_caller_needs_no_task(store: Store, key: bytes) -> None:
    done = asyncio.Event()
    seen: list[object] = []

    async def ask() -> None:
        fence = await store.lease(key, 9)
        await store.put(key, b"v", later(), fence or 0)
        await store.append(key, b"row", later())
        seen.append(await value(store, key))
        await store.release(key, fence or 0)
        await store.drop(key)
        seen.append(await value(store, key))
        done.set()

    Drive(ask(), asyncio.get_running_loop())
    await asyncio.wait_for(done.wait(), 10)
    assert seen == [b"v", None]


async def test_one_who_gives_up_disturbs_nobody(store: Store, key: bytes) -> None:
    await store.put(key, b"v", later())
    for _ in range(20):
        asking = [asyncio.ensure_future(value(store, key)) for _ in range(10)]
        leasing = [asyncio.ensure_future(store.lease(token_bytes(8), 9)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in (*asking[::2], *leasing[::2]):
            task.cancel()
        assert [await task for task in asking[1::2]] == [b"v"] * 5
        assert all([await task for task in leasing[1::2]])


# --- clocks


async def test_a_clock_set_back_neither_brings_back_nor_loses(
    store: Store, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(key + b"short", b"v", later(0.3))
    await store.put(key + b"long", b"v", later(HOUR_S))
    await store.append(key, b"short", later(0.3))
    await store.append(key, b"long", later(HOUR_S))
    fence = await store.lease(key, 0.3)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 2 * HOUR_S)
    await asyncio.sleep(0.35)
    assert await value(store, key + b"short") is None
    found = await store.get(key + b"long")
    assert found is not None
    assert found[1] == pytest.approx(time.time() + HOUR_S, abs=5)
    assert [row for _, row in await everything(store, key)] == [b"long"]
    again = await store.lease(key, 0.3)
    assert again is not None
    assert again > (fence or 0)
    await store.put(key + b"new", b"v", time.time() + 0.3)
    await store.append(key, b"new", time.time() + 0.3)
    assert await value(store, key + b"new") == b"v"
    assert [row for _, row in await logged(store, key, 2)] == [b"long", b"new"]
    await asyncio.sleep(0.35)
    assert await store.get(key + b"new") is None
    monkeypatch.setattr(time, "time", real)
    assert await store.get(key + b"new") is None
    assert await value(store, key + b"long") == b"v"
    assert [row for _, row in await everything(store, key)] == [b"long"]


async def test_a_clock_set_forward_for_a_moment_loses_nothing_for_good(
    store: Store, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(key, b"v", later(HOUR_S))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + HOUR_S / 2)
    assert await value(store, key) == b"v"
    monkeypatch.setattr(time, "time", real)
    assert await value(store, key) == b"v"
