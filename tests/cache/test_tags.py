"""Tags: what was invalidated is never given again, whoever invalidated it, in whatever order things happen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from time import time
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from stepwell.cache import tags as room
from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import Terms
from stepwell.cache.rows import EVENTS, LABELS, AnswerRow, Event, encode
from stepwell.cache.tags import BLIND, Tags, report_bad, tag_of
from stepwell.errors import StoreError
from stepwell.store.memory import Memory
from stepwell.store.memory_store import MemoryStore
from stepwell.types import Label

LONG = bool(os.environ.get("STEPWELL_LONG"))
"""Ten to the five steps instead of a few thousand."""
TAGS = ("doc:1", "doc:2", "model:m")
PARTITION = b"p" * 32


class Late(MemoryStore):
    """Rows that were added appear when they are flushed, in order: as SQLite's do."""

    def __init__(self) -> None:
        super().__init__(100_000_000)
        self.waiting: list[tuple[bytes, bytes, float]] = []

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        self.waiting.append((log, row, expires_s))

    async def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            await super().append(*each)


class Begun(NamedTuple):
    """An answer that is being made: by which process, since when."""

    who: int
    key: bytes
    tags: tuple[str, ...]
    position: int
    at: int


class Stale(RuleBasedStateMachine):
    """Two processes on one store; every answer says which one it is, and the model knows what was bumped after it."""

    makings = Bundle("makings")
    who = st.integers(0, 1)
    key = st.sampled_from([bytes([at]) * 32 for at in range(4)])

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = Late()
        self.processes: list[Exact] = []
        for _ in range(2):
            memory: Memory[Held] = Memory(10_000_000)
            self.processes.append(Exact(memory, self.store, Tags(self.store, keep_s=1e6, shared=True)))
        self.at = 0
        self.bumps: list[tuple[int, int, str]] = []
        """When, by whom, which tag; those of others count once they can be known."""
        self.known = [0, 0]
        self.num_flushed = 0
        self.answers: dict[bytes, Begun] = {}

    def play(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(doing)

    @rule(target=makings, who=who, key=key, tags=st.sets(st.sampled_from(TAGS)))
    def begin(self, who: int, key: bytes, tags: set[str]) -> Begun:
        self.at += 1
        return Begun(who, key, tuple(sorted(tags)), self.processes[who].tags.position, self.at)

    @rule(begun=makings)
    def keep(self, begun: Begun) -> None:
        exact = self.processes[begun.who]
        if exact.tags.dead(begun.tags, begun.position):
            return
        self.at += 1
        body = b"%d" % self.at
        self.answers[body] = begun
        row = AnswerRow(
            PARTITION, "json", body, None, "e", 0.0, time(), time() + 1e6, tags=begun.tags, position=begun.position
        )

        async def kept() -> None:
            exact.keep(begun.key, PARTITION, row, Terms(1e6), 0)

        self.play(kept())

    @rule(who=who, tag=st.sampled_from(TAGS))
    def bump(self, who: int, tag: str) -> None:
        self.at += 1
        self.bumps.append((self.at, who, tag))
        self.play(self.processes[who].tags.bump(tag))

    @rule()
    def flush(self) -> None:
        self.play(self.store.flush())
        self.num_flushed = len(self.bumps)

    @rule(who=who)
    def poll(self, who: int) -> None:
        self.play(self.processes[who].tags.read())
        self.known[who] = self.num_flushed

    @rule(who=who, key=key)
    def ask(self, who: int, key: bytes) -> None:
        exact = self.processes[who]
        held = exact.recall(key, PARTITION)
        if held is None:
            begins = not exact.tags.replayed
            held = self.play(exact.find(key, PARTITION, PARTITION, Terms(1e6)))
            self.known[who] = self.num_flushed if begins else self.known[who]
        if held is not None:
            self.check(who, held)

    def check(self, who: int, held: Held) -> None:
        begun = self.answers[held.row.body]
        for number, (at, by, tag) in enumerate(self.bumps):
            if at > begun.at and tag in begun.tags and (by == who or number < self.known[who]):
                raise AssertionError(f"{tag} was bumped at {at}, and what was begun at {begun.at} is still given")

    def teardown(self) -> None:
        async def close() -> None:
            for each in self.processes:
                await each.tags.close()

        self.play(close())
        self.loop.close()


def test_nothing_stale_is_given_after_a_bump() -> None:
    examples, steps = (1000, 100) if LONG else (40, 50)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Stale, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )


async def test_a_bump_is_seen_by_others_when_they_poll_and_by_those_who_start_later() -> None:
    store = MemoryStore(1_000_000)
    mine, theirs = Tags(store, keep_s=100, shared=True), Tags(store, keep_s=100, shared=True)
    await theirs.ready()
    await mine.bump("doc:1", "rewritten")
    assert mine.dead(["doc:1"], 0)
    assert not mine.dead(["doc:2"], 0)
    await asyncio.sleep(2.5 * room.POLL_S)
    assert theirs.dead(["doc:1"], 0)
    assert not theirs.dead(["doc:1"], theirs.position)
    late = Tags(store, keep_s=100, shared=True)
    await late.ready()
    assert late.dead(["doc:1"], 0)
    for each in (mine, theirs, late):
        await each.close()


async def test_a_bad_answer_is_killed_and_remembered_as_a_hard_negative() -> None:
    store = MemoryStore(1_000_000)
    label = Label(
        step="cache",
        partition=PARTITION,
        features=(0.9,),
        right=False,
        predicted=0.99,
        share=1.0,
        would_serve=True,
        at_s=time(),
        version=1,
    )
    await report_bad(store, b"\x01" * 32, 100.0, label, "wrong city")
    table = Tags(store, keep_s=100, shared=False)
    await table.ready()
    assert table.dead([tag_of(b"\x01" * 32)], 0)
    ((_, kept),) = await store.since(LABELS, 0, 10)
    assert room.msgspec.msgpack.decode(kept, type=Label) == label
    await table.close()


async def test_an_event_that_cannot_be_read_is_left_out() -> None:
    store = MemoryStore(1_000_000)
    await store.append(EVENTS, b"\xc1nonsense", time() + 100)
    await store.append(EVENTS, encode(Event("doc:?", time())).replace(b"?", b"\xff"), time() + 100)
    table = Tags(store, keep_s=100, shared=False)
    await table.bump("doc:1")
    assert table.dead(["doc:1"], 0)
    await table.close()


class Broken(MemoryStore):
    """Cannot be read or written while it is broken."""

    broken = False

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        if self.broken:
            raise StoreError("broken")
        return await super().since(log, position, limit)

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        if self.broken:
            raise StoreError("broken")
        await super().append(log, row, expires_s)


@pytest.mark.parametrize("shared", [True, False])
async def test_who_cannot_read_what_others_invalidate_trusts_memory_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch, *, shared: bool
) -> None:
    monkeypatch.setattr(room, "POLL_S", 0.005)
    monkeypatch.setattr(room, "BLIND_S", 0.05)
    store = Broken(1_000_000)
    table = Tags(store, keep_s=100, shared=shared)
    await table.ready()
    store.broken = True
    await asyncio.sleep(0.02)
    assert table.version != BLIND
    await asyncio.sleep(0.1)
    assert (table.version == BLIND) is shared
    store.broken = False
    await asyncio.sleep(0.05)
    assert table.version != BLIND
    await table.close()


async def test_a_bump_that_cannot_be_written_is_said_and_holds_here_all_the_same() -> None:
    store = Broken(1_000_000)
    table = Tags(store, keep_s=100, shared=True)
    await table.ready()
    store.broken = True
    with pytest.raises(StoreError):
        await table.bump("doc:1")
    assert table.dead(["doc:1"], 0)
    assert not table.unseen
    await table.close()


async def test_tags_whose_events_have_expired_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MANY_TAGS", 50)
    table = Tags(None, keep_s=-1.0, shared=False)
    for at in range(500):
        await table.bump(f"doc:{at}")
    assert len(table.last) <= 100
