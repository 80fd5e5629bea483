"""Nearest keys: flat, in cells, growing, shrinking, refused, kept in a snapshot and read from a log."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stepwell.cache import spaces
from stepwell.cache.metric import Metric
from stepwell.cache.rows import encode
from stepwell.cache.spaces import Spaces
from stepwell.index import snapshot
from stepwell.index.cells import Cells, split
from stepwell.index.feed import Feed
from stepwell.index.flat import Flat
from stepwell.index.index import Index
from stepwell.index.keys import Keys
from stepwell.index.rows import KEYS, KeyAdded
from stepwell.index.vectors import packed, unpacked, unsound
from stepwell.store.memory_store import MemoryStore
from stepwell.store.sqlite import Sqlite

FAR_S = 4e9
HERE, THERE = b"h" * 32, b"t" * 32


def vectors(count: int, size: int = 32, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around a few directions, as the wordings of a few questions are."""
    chance = np.random.default_rng(seed)
    middles = chance.standard_normal((20, size))
    given = middles[chance.integers(0, 20, count)] + 0.5 * chance.standard_normal((count, size))
    unit: NDArray[np.float32] = (given / np.linalg.norm(given, axis=1, keepdims=True)).astype(np.float32)
    return unit


def row(given: NDArray[np.float32], **changes: object) -> KeyAdded:
    told: dict[str, object] = {
        "exact": sha256(given.tobytes()).digest(),
        "partition": HERE,
        "answer": sha256(b"a" + given.tobytes()).digest(),
        "text": "How deep is the well?",
        "vector": packed(given).tobytes(),
        "embedder": "",
        "principal": b"",
        "expires_s": FAR_S,
    }
    return KeyAdded(**{**told, **changes})  # type: ignore[arg-type]


def filled(given: NDArray[np.float32], flat_limit: int = 4096, **changes: object) -> Index:
    index = Index(flat_limit=flat_limit)
    assert index.add([(number, row(each, **changes)) for number, each in enumerate(given, 1)]) == []
    return index


def grown(index: Index) -> Index:
    index.grow()
    until = time.monotonic() + 30
    while index.growing and time.monotonic() < until:
        time.sleep(0.005)
        index.grow()
    assert not index.growing
    return index


# --- codes


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=64).filter(any))
def test_codes_keep_the_direction(numbers: list[float]) -> None:
    vector = np.array(numbers, np.float32)
    if unsound(vector):
        return
    cosine = float(unpacked(packed(vector)) @ vector / np.linalg.norm(vector))
    assert cosine > 1 - 1e-4 * len(numbers)


def test_the_same_question_has_cosine_one() -> None:
    given = vectors(50)
    index = filled(given)
    for number, each in enumerate(given, 1):
        numbers, cosines = index.nearest(HERE, each)
        assert numbers[0] == number
        assert cosines[0] == pytest.approx(1, abs=1e-6)


# --- flat and cells


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 99))
def test_flat_finds_what_looking_at_all_finds(count: int, k: int, seed: int) -> None:
    given = vectors(count, seed=seed)
    asked = vectors(1, seed=seed + 1000)[0]
    flat = Flat(32)
    codes = np.stack([packed(each) for each in given])
    flat.add(np.arange(count), codes)
    numbers, cosines = flat.nearest(packed(asked), k)
    wanted = np.sort(unpacked(codes) @ unpacked(packed(asked)))[::-1][:k]
    assert cosines == pytest.approx(wanted, abs=1e-5)
    assert len(set(numbers.tolist())) == min(k, count)


def test_cells_find_nearly_all_that_flat_finds() -> None:
    given, asked = vectors(6000, 64), vectors(300, 64, seed=5)
    codes = np.stack([packed(each) for each in given])
    cells, flat = split(np.arange(6000), codes), Flat(64)
    flat.add(np.arange(6000), codes)
    same = [cells.nearest(packed(each), 16)[0][0] == flat.nearest(packed(each), 16)[0][0] for each in asked]
    assert np.mean(same) >= 0.99
    assert (cells.codes_of([5999, 0, 17]) == codes[[5999, 0, 17]]).all()


def test_cells_of_alike_keys_and_of_very_few() -> None:
    alike = np.repeat(packed(vectors(1)[0])[None], 500, axis=0)
    assert len(split(np.arange(500), alike).nearest(alike[0], 16)[0]) == 16
    assert split(np.array([7]), alike[:1]).nearest(alike[0], 16)[0].tolist() == [7]


def test_a_partition_grows_into_cells_without_losing_anything() -> None:
    given = vectors(1500)
    index = filled(given[:1000], flat_limit=900)
    index.grow()
    index.add([(number, row(each)) for number, each in enumerate(given[1000:], 1001)])  # while cells are made
    index.remove([5])
    index.remove([1200])
    grown(index)
    assert isinstance(index.parts[0], Cells)
    assert len(index) == len(index.parts[0]) == 1498
    found = [index.nearest(HERE, each)[0][0] for each in given]
    assert np.mean(np.array(found) == np.arange(1, 1501)) > 0.99
    assert 5 not in found
    assert 1200 not in found


def test_cells_are_made_anew_when_there_are_many_more_keys() -> None:
    given = vectors(2500)
    index = grown(filled(given[:500], flat_limit=400))
    first = index.parts[0]
    index.add([(number, row(each)) for number, each in enumerate(given[500:], 501)])
    grown(index)
    assert index.parts[0] is not first
    assert index.parts[0].num_at_first == 2500  # type: ignore[union-attr]
    assert index.nearest(HERE, given[2400])[0][0] == 2401


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_added_and_removed_what_is_left_is_found(data: st.DataObject) -> None:
    given = vectors(80, 16)
    codes = np.stack([packed(each) for each in given])
    part = data.draw(st.sampled_from([split(np.arange(40), codes[:40]), Flat(16)]))
    if isinstance(part, Flat):
        part.add(np.arange(40), codes[:40])
    left = dict.fromkeys(range(40))
    for number in range(40, 80):
        gone = data.draw(st.sampled_from(sorted(left)))
        part.remove(np.array([gone, 999]))
        del left[gone]
        part.add(np.array([number]), codes[number][None])
        left[number] = None
    numbers, kept = part.above(-1)
    assert numbers.tolist() == sorted(left)
    assert (kept == codes[numbers]).all()
    assert len(part) == 40


# --- the index


def test_partitions_never_mix() -> None:
    given = vectors(40)
    index = filled(given[:20])
    index.add([(number, row(each, partition=THERE)) for number, each in enumerate(given[20:], 21)])
    for each in given:
        assert set(index.nearest(HERE, each, 40)[0].tolist()) == set(range(1, 21))
        assert set(index.nearest(THERE, each, 40)[0].tolist()) == set(range(21, 41))
    assert index.nearest(b"n" * 32, given[0])[0].size == 0
    assert (index.num_keys(HERE), index.num_keys(THERE), index.num_keys(b"n" * 32)) == (20, 20, 0)


@pytest.mark.parametrize(
    ("number", "changes", "says"),
    [
        (3, {}, "not above"),
        (9, {"vector": b""}, "vector of 0 bytes"),
        (9, {"vector": bytes(32)}, "zero"),
        (9, {"vector": b"\1" * 31}, "31 bytes instead of 32"),
        (9, {"answer": b"short"}, "5 bytes instead of 32"),
    ],
)
def test_a_bad_row_is_refused_and_the_others_are_not(number: int, changes: dict[str, object], says: str) -> None:
    given = vectors(6)
    index = filled(given[:3])
    wrong = index.add([(number, row(given[3], **changes)), (10, row(given[4]))])
    assert len(wrong) == 1
    assert says in wrong[0]
    assert len(index) == 4
    assert index.nearest(HERE, given[4])[0][0] == 10


def test_vectors_of_two_lengths_in_a_new_partition_are_not_mixed() -> None:
    given = vectors(3)
    index = Index()
    wrong = index.add(
        [(1, row(given[0])), (2, row(given[1], vector=b"\1" * 31)), (2, row(given[2])), (2, row(given[1]))]
    )
    assert [each.split()[1] for each in wrong] == ["2", "2"]
    assert index.nearest(HERE, given[2])[0][0] == 2


def test_nothing_is_near_a_vector_that_is_none() -> None:
    index = filled(vectors(3))
    for bad in (np.zeros(32), np.full(32, np.nan), np.full(32, np.inf), np.ones(31), np.ones((1, 32)), np.ones(0)):
        assert index.nearest(HERE, bad.astype(np.float32))[0].size == 0


def test_what_belongs_to_a_key() -> None:
    given = vectors(3)
    index = Index()
    index.add([(7, row(given[0], text="Tiefe?\ud800", expires_s=FAR_S)), (9, row(given[1], text=""))])
    first, second = index.get(7), index.get(9)
    assert first is not None
    assert second is not None
    assert (first.text, first.answer, first.expires_s) == ("Tiefe??", row(given[0]).answer, FAR_S)
    assert (second.text, second.number) == ("", 9)
    assert index.get(8) is None
    assert index.vectors(HERE, np.array([9, 7])) @ given[1] == pytest.approx([1, float(given[0] @ given[1])], abs=0.01)


def test_expired_and_killed_keys_are_gone() -> None:
    given = vectors(10)
    index = Index()
    bad = b"b" * 32
    index.add([(1, row(given[0], expires_s=time.time() - 1)), (2, row(given[1], expires_s=time.time() + 60))])
    index.add([(number, row(given[number], answer=bad)) for number in range(3, 8)])
    assert index.get(1) is None
    assert index.sweep(time.time()) == 1
    assert index.forget(bad) == 5
    assert index.forget(bad) == 0
    assert index.nearest(HERE, given[4])[0].tolist() == [2]
    assert len(index) == 1
    assert index.get(2) is not None


def test_the_newest_of_a_partition_come_with_their_answers() -> None:
    given = vectors(600)
    for index in (filled(given), grown(filled(given, flat_limit=100))):
        index.remove([1])
        for most in (599, 20_000, 250):
            codes, answers = index.newest(HERE, most)
            wanted = given[1:][-most:]
            assert answers == [row(each).answer for each in wanted]
            assert np.einsum("ij,ij->i", unpacked(codes), wanted).min() > 0.999


def test_thousands_of_small_partitions_are_cheap() -> None:
    given = vectors(6000, 384)
    index = Index()
    index.add([(number, row(each, partition=b"%032d" % (number // 3))) for number, each in enumerate(given, 3)])
    assert len(index.partitions()) == 2000
    weight = sum(part.codes.__sizeof__() + part.__sizeof__() + part.numbers.__sizeof__() for part in index.parts)  # type: ignore[union-attr]
    assert weight < 6000 * 600
    assert index.nearest(b"%032d" % 1000, given[2997])[0].tolist()[0] == 3000


async def test_a_turn_without_news_looks_at_no_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    given, num_looks = vectors(1, 16)[0], 0
    index, metrics = Index(), Spaces()
    index.add([(number, row(given, partition=b"%032d" % number)) for number in range(1, 20_001)])
    index.grow()
    await metrics.refresh(index)
    plain_len, plain_due = Flat.__len__, spaces.due

    def counted_len(flat: Flat) -> int:
        nonlocal num_looks
        num_looks += 1
        return plain_len(flat)

    def counted_due(num_keys: int, metric: Metric | None) -> bool:
        nonlocal num_looks
        num_looks += 1
        return plain_due(num_keys, metric)

    monkeypatch.setattr(Flat, "__len__", counted_len)
    monkeypatch.setattr(spaces, "due", counted_due)
    index.grow()
    await metrics.refresh(index)
    assert num_looks == 0
    index.add([(20_001, row(given, partition=b"%032d" % 7))])
    index.grow()
    await metrics.refresh(index)
    assert 0 < num_looks < 10


async def test_a_partition_without_keys_is_gone_and_its_place_is_taken_again(tmp_path: Path) -> None:
    given, store = vectors(200), MemoryStore(10_000_000)
    feed, metrics = Feed(store, tmp_path / "snapshot"), Spaces()
    await logged(store, given[:100], expires_s=time.time() + 0.2, answer=HERE)
    await logged(store, given[100:], partition=THERE, answer=THERE)
    await feed.follow()
    await metrics.refresh(feed.index)
    assert set(metrics.metrics) == {HERE, THERE}
    assert feed.index.sweep(time.time() + 2) == 100
    assert feed.index.partitions() == [THERE]
    assert feed.index.num_keys(HERE) == feed.index.nearest(HERE, given[0])[0].size == 0
    await metrics.refresh(feed.index)
    assert set(metrics.metrics) == set(metrics.tried) == {THERE}
    await feed.save()
    again = Feed(store, tmp_path / "snapshot")
    await again.begin()
    for index in (feed.index, again.index):
        index.add([(500, row(given[0], partition=b"n" * 32)), (501, row(given[1], partition=b"m" * 32))])
        assert index.places == {b"n" * 32: 0, THERE: 1, b"m" * 32: 2}
        assert index.nearest(b"n" * 32, given[0])[0].tolist() == [500]
        assert index.forget(THERE) == 100
        assert index.forget(row(given[0]).answer) == 1
        assert index.partitions() == [b"m" * 32]


def test_a_partition_that_goes_while_it_grows_leaves_nothing_to_the_next_one() -> None:
    given = vectors(300)
    index = filled(given[:200], flat_limit=100, answer=THERE)
    index.grow()
    assert index.forget(THERE) == 200
    index.add([(number, row(each, partition=THERE)) for number, each in enumerate(given[200:], 201)])
    grown(index)
    assert isinstance(index.parts[0], Flat)
    assert index.num_keys(THERE) == 100


def test_columns_are_packed_when_much_is_gone() -> None:
    keys = Keys()
    given = vectors(100)
    rows = [(number, row(each, text="t" * number)) for number, each in enumerate(given, 1)]
    keys.add(rows, [0] * 100)
    for number in range(1, 61):
        keys.remove(number)
    keys.pack()
    assert len(keys.numbers) == len(keys) == 40
    assert [keys.get(number) is not None for number in (60, 61, 100)] == [False, True, True]
    assert keys.get(77) == Keys.get(keys, 77)
    found = keys.get(77)
    assert found is not None
    assert (found.text, found.answer) == ("t" * 77, rows[76][1].answer)


# --- the log, and the snapshot


async def logged(store: MemoryStore | Sqlite, given: NDArray[np.float32], **changes: object) -> None:
    for each in given:
        await store.append(KEYS, encode(row(each, **changes)), FAR_S)


async def test_an_index_follows_its_log() -> None:
    store = MemoryStore(10_000_000)
    given = vectors(1200)
    await logged(store, given[:1100])
    feed = Feed(store)
    assert await feed.follow() == 1100
    assert await feed.follow() == 0
    await logged(store, given[1100:])
    await store.append(KEYS, b"\xc1 no row", FAR_S)
    await store.append(KEYS, encode(row(given[0], vector=b"\1")), FAR_S)
    assert await feed.follow() == 102
    assert len(feed.index) == 1200
    assert feed.num_refused == 2
    numbers, _ = feed.index.nearest(HERE, given[1150])
    key = feed.index.get(int(numbers[0]))
    assert key is not None
    assert key.answer == row(given[1150]).answer


async def test_a_snapshot_brings_everything_back_and_the_log_what_is_newer(tmp_path: Path) -> None:
    store = Sqlite(tmp_path / "cache.db", limit_bytes=2**24, flush_ms=10)
    given = vectors(400)
    try:
        await logged(store, given[:150])
        await logged(store, given[150:300], partition=THERE)
        first = Feed(store, tmp_path / "snapshot")
        first.index.flat_limit = 100
        while await first.follow() or len(first.index) < 300:
            pass
        grown(first.index)
        first.index.forget(row(given[3]).answer)
        await first.save()
        await logged(store, given[300:])
        second = Feed(store, tmp_path / "snapshot")
        while await second.follow() or len(second.index) < 399:
            pass
        assert isinstance(second.index.parts[0], Cells)
        for number, each in enumerate(given):
            where = THERE if 150 <= number < 300 else HERE
            numbers, _ = second.index.nearest(where, each)
            key = second.index.get(int(numbers[0]))
            assert key is not None
            assert (key.answer == row(each).answer) == (number != 3)
    finally:
        await store.close()


async def saved(folder: Path) -> tuple[MemoryStore, Path]:
    store, file = MemoryStore(10_000_000), folder / "snapshot"
    await logged(store, vectors(50))
    feed = Feed(store, file)
    await feed.follow()
    await feed.save()
    return store, file


@pytest.mark.parametrize("harm", ["cut", "bit", "empty", "version", "junk"])
async def test_a_snapshot_that_cannot_be_used_costs_only_time(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, file = await saved(tmp_path)
    data = bytearray(file.read_bytes())
    if harm == "bit":
        data[len(data) // 2] ^= 1
    elif harm in ("version", "junk"):
        body = snapshot.encode(snapshot.Snapshot(99, 1, b"", {}, [])) if harm == "version" else b"junk"
        data = bytearray(sha256(body).digest() + body)
    file.write_bytes({"cut": data[:-10], "empty": b""}.get(harm, data))
    feed = Feed(store, file)
    assert await feed.follow() == 50
    assert len(feed.index) == 50
    assert "read from the log" in caplog.text


async def test_a_snapshot_of_another_log_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, file = await saved(tmp_path)
    other = MemoryStore(10_000_000)
    await logged(other, vectors(60, seed=9))
    feed = Feed(other, file)
    assert await feed.follow() == 60
    assert len(feed.index) == 60
    assert "another log" in caplog.text


async def test_a_full_disk_costs_only_the_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, _ = await saved(tmp_path)
    (tmp_path / "file").write_text("")
    feed = Feed(store, tmp_path / "file" / "snapshot")
    await feed.follow()
    await feed.save()
    assert "cannot be written" in caplog.text
    assert len(feed.index) == 50
