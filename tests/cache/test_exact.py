"""The exact cache: memory before the store, partitions checked on every row, and a store that fails."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

import msgspec
import pytest

from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import Terms
from stepwell.cache.rows import AnswerRow, KeyRow, encode, name_of
from stepwell.cache.tags import Tags
from stepwell.errors import StoreError
from stepwell.store.memory import Memory
from stepwell.store.memory_store import MemoryStore
from stepwell.types import Usage

TERMS = Terms(1000.0)
KEY, SCOPE, PARTITION = b"k" * 32, b"s" * 32, b"p" * 32


def row(body: bytes = b"{}", partition: bytes = PARTITION, **more: Any) -> AnswerRow:
    now_s = time()
    return AnswerRow(partition, "json", body, Usage(1, 2), "up", 0.5, now_s, now_s + 1000, **more)


def exact(store: MemoryStore | None = None, limit_bytes: int = 1_000_000) -> Exact:
    memory: Memory[Held] = Memory(limit_bytes)
    return Exact(memory, store, Tags(store, keep_s=1000, shared=True))


async def settle() -> None:
    await asyncio.sleep(0.01)


async def test_what_is_kept_is_recalled_at_once_and_found_by_another_process() -> None:
    store = MemoryStore(1_000_000)
    first, second = exact(store), exact(store)
    held = first.keep(KEY, SCOPE, row(), TERMS, 0)
    assert first.recall(KEY, SCOPE) is held
    await settle()
    assert second.recall(KEY, SCOPE) is None
    found = await second.find(KEY, SCOPE, PARTITION, TERMS)
    assert found is not None
    assert (found.row, found.name) == (held.row, held.name)
    assert second.recall(KEY, SCOPE) is found
    await first.close()
    await second.close()


async def test_a_row_of_another_partition_is_no_hit_wherever_it_lies() -> None:
    store = MemoryStore(1_000_000)
    cache = exact(store)
    cache.keep(KEY, SCOPE, row(), TERMS, 0)
    await settle()
    assert cache.recall(KEY, b"t" * 32) is None
    other = exact(store)
    assert await other.find(KEY, SCOPE, b"q" * 32, TERMS) is None
    theirs = row(partition=b"q" * 32)
    await store.put(b"a" + name_of(theirs), encode(theirs), time() + 1000)
    await store.put(b"k" + KEY, encode(KeyRow(name_of(theirs), PARTITION)), time() + 1000)
    assert await other.find(KEY, SCOPE, PARTITION, TERMS) is None, "the key says mine, the answer is theirs"
    await store.put(b"k" + KEY, encode(KeyRow(name_of(theirs), b"q" * 32)), time() + 1000)
    assert await other.find(KEY, SCOPE, PARTITION, TERMS) is None
    assert (await other.named(name_of(theirs), PARTITION))[0] is None
    await cache.close()
    await other.close()


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x93\x01", encode(["x"]), encode(5), encode({"a": 1})])
async def test_a_row_that_cannot_be_read_is_a_miss(damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(1_000_000)
    cache = exact(store)
    held = cache.keep(KEY, SCOPE, row(), TERMS, 0)
    await settle()
    cache.memory.drop(KEY)
    await store.put(b"a" + held.name, damage, time() + 1000)
    assert await cache.find(KEY, SCOPE, PARTITION, TERMS) is None
    await store.put(b"k" + KEY, damage, time() + 1000)
    assert await cache.find(KEY, SCOPE, PARTITION, TERMS) is None
    assert "cannot be read" in caplog.text
    await cache.close()


async def test_many_keys_lead_to_one_answer_and_die_with_it() -> None:
    store = MemoryStore(1_000_000)
    cache = exact(store)
    held = cache.keep(KEY, SCOPE, row(), TERMS, 0)
    await settle()
    other = b"o" * 32
    await store.put(b"k" + other, encode(KeyRow(held.name, PARTITION)), time() + 1000)
    assert await cache.find(other, SCOPE, PARTITION, TERMS) is not None
    await cache.tags.bump(f"answer:{held.name.hex()}")
    for key in (KEY, other):
        assert cache.recall(key, SCOPE) is None
        assert await cache.find(key, SCOPE, PARTITION, TERMS) is None
    assert (await cache.named(held.name, PARTITION))[0] is None
    await cache.close()


def test_answers_that_may_be_invalidated_apart_have_names_apart() -> None:
    one = row()
    assert name_of(one) == name_of(msgspec.structs.replace(one, made_s=1.0, saved_usd=9.0))
    others = [
        msgspec.structs.replace(one, partition=b"q"),
        msgspec.structs.replace(one, tags=("doc:1",)),
        msgspec.structs.replace(one, position=7),
        msgspec.structs.replace(one, body=b"{ }"),
    ]
    assert len({name_of(each) for each in (one, *others)}) == 5


class Failing(MemoryStore):
    """Fails while it is told to; counts how often it is asked."""

    num_asked = 0
    fails = False

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        self.num_asked += 1
        if self.fails:
            raise StoreError("gone")
        return await super().get(key)


async def test_a_store_that_fails_is_left_alone_for_a_moment_and_comes_back_by_itself() -> None:
    store = Failing(1_000_000)
    cache = exact(store)
    await cache.ready()
    store.fails = True
    for _ in range(5):
        with pytest.raises(StoreError):
            await cache.find(KEY, SCOPE, PARTITION, TERMS)
    assert store.num_asked == 1
    store.fails = False
    cache.rests_until_s = 0.0
    assert await cache.find(KEY, SCOPE, PARTITION, TERMS) is None
    await cache.close()


async def test_what_waits_to_be_written_is_written_before_it_closes() -> None:
    class Slow(MemoryStore):
        async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
            await asyncio.sleep(0.02)
            await super().put(key, value, expires_s, fence)

    store = Slow(1_000_000)
    cache = exact(store)
    cache.keep(KEY, SCOPE, row(), TERMS, 0)
    await cache.close()
    assert await exact(store).find(KEY, SCOPE, PARTITION, TERMS) is not None


async def test_without_a_store_memory_is_all_there_is() -> None:
    cache = exact()
    held = cache.keep(KEY, SCOPE, row(), TERMS, 0)
    assert cache.recall(KEY, SCOPE) is held
    assert await cache.find(KEY, SCOPE, PARTITION, TERMS) is None
    await cache.close()
