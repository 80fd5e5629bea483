"""Many tenants, two processes, one store: never another's answer, never a dead or expired one, never an older fence's.

Hypothesis plays questions, leases, late writers, invalidations, restarts and planted rows against the exact cache over
every store. STEPWELL_OPERATIONS plays so many a store instead of a few thousand.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import ANYTHING, Terms, state
from stepwell.cache.key import Share, identity, key, scope
from stepwell.cache.rows import AnswerRow, KeyRow, encode
from stepwell.cache.tags import Tags, tag_of
from stepwell.gateway import openai
from stepwell.protocols import Store
from stepwell.store.memory import Memory
from stepwell.types import Caller, Request
from store.places import KINDS, Place, place_of

OPERATIONS = int(os.environ.get("STEPWELL_OPERATIONS", "2000"))
MODELS: dict[str, Share] = {"own": "principal", "team": "tenant"}
CALLERS = [Caller(f"tenant {tenant}", f"principal {who}") for tenant in range(3) for who in range(2)]
TEXTS = ["hi", "hi ", "Hi", "hi\0", "tenant 1"]
SECRET = b"s" * 32
TTLS_S = (0.02, 0.2, 30.0)
TAGS = ("doc:1", "doc:2")
TRAVEL_S = 1.0
"""A server counts a lifetime from when it hears of it; the cache itself looks at the clock once more."""
MANY = st.lists(st.integers(0, 2**30), min_size=1, max_size=30)


class Apart:
    """A store of which each example sees a part of its own."""

    def __init__(self, store: Store, prefix: bytes) -> None:
        self.store, self.prefix, self.name = store, prefix, store.name

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        return await self.store.get(self.prefix + key)

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        await self.store.put(self.prefix + key, value, expires_s, fence)

    async def drop(self, key: bytes) -> None:
        await self.store.drop(self.prefix + key)

    async def lease(self, key: bytes, ttl_s: float) -> int | None:
        return await self.store.lease(self.prefix + key, ttl_s)

    async def release(self, key: bytes, fence: int) -> None:
        await self.store.release(self.prefix + key, fence)

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        await self.store.append(self.prefix + log, row, expires_s)

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        return await self.store.since(self.prefix + log, position, limit)

    async def close(self) -> None:
        await self.store.close()


@dataclass(frozen=True)
class Asked:
    """A question with who asks it, and everything the cache knows it by."""

    request: Request
    audience: tuple[str, ...]
    exact: bytes
    scope: bytes
    partition: bytes

    @property
    def meaning(self) -> list[object]:
        """What an answer must have been made for, to be given to this caller."""
        return [*self.audience, self.request.model, json.loads(self.request.body)["messages"]]


@dataclass
class Truth:
    """What the world knows of the answers."""

    dead: set[int] = field(default_factory=set)
    serials: dict[bytes, list[int]] = field(default_factory=dict)
    tags: dict[int, tuple[str, ...]] = field(default_factory=dict)
    names: dict[int, bytes] = field(default_factory=dict)
    partitions: dict[int, bytes] = field(default_factory=dict)
    ends_s: dict[int, float] = field(default_factory=dict)
    fences: dict[int, int] = field(default_factory=dict)
    best: dict[bytes, int] = field(default_factory=dict)
    """The highest fence whose write is through, by exact digest."""
    granted: dict[bytes, int] = field(default_factory=dict)
    num_operations: int = 0
    num_hits: int = 0


def asked(caller: Caller, model: str, text: str, route: bytes) -> Asked:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0}
    request = openai.parse("chat", json.dumps(body).encode(), id="1", caller=caller, started_s=0.0)
    whose = scope(route, caller, MODELS[model])
    exact = key(whose, request)
    who = identity(whose, exact, request, embedder="e", secret=SECRET)
    partition = whose if isinstance(who, str) else who.partition
    audience = (caller.tenant, caller.principal) if MODELS[model] == "principal" else (caller.tenant,)
    return Asked(request, audience, exact, whose, partition)


class Tenants(RuleBasedStateMachine):
    """Two processes at one place."""

    totals: Truth
    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.truth, self.prefix = Truth(), token_bytes(8)
        self.leases: list[tuple[int, Asked, int]] = []
        self.asked: list[Asked] = []
        self.processes: list[Exact] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def choice(self, number: int) -> tuple[Exact, Asked]:
        return self.processes[number % 2], self.asked[(number >> 1) % len(self.asked)]

    def started(self) -> Exact:
        store = Apart(self.opened(), self.prefix)
        return Exact(Memory(40_000), store, Tags(store, keep_s=60.0, shared=True))

    def opened(self) -> Store:
        async def open_it() -> Store:
            return self.place.open()

        opened: Store = self.run(open_it())
        return opened

    @initialize(texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2, unique=True))
    def start(self, texts: list[str]) -> None:
        """Few questions, so that they meet."""
        self.asked = [asked(caller, model, text, b"r") for caller in CALLERS for model in MODELS for text in texts]
        self.processes = [self.started(), self.started()]

    # --- asking

    @rule(numbers=MANY)
    def ask(self, numbers: list[int]) -> None:
        """Memory, then the store."""
        self.run(self.all_of([self.look(*self.choice(number), deep=False) for number in numbers]))

    @rule(numbers=MANY)
    def use(self, numbers: list[int]) -> None:
        """Ask, and make what is not there."""
        self.run(self.all_of([self.used(number) for number in numbers]))

    async def used(self, number: int) -> None:
        process, question = self.choice(number)
        if not await self.look(process, question, deep=False):
            fence = await process.lease(question.exact, 30.0)
            if fence is not None:
                self.granted(question, fence)
                await self.keep(number % 2, question, fence, number >> 6)

    @rule(numbers=MANY)
    def ask_the_store(self, numbers: list[int]) -> None:
        self.run(self.all_of([self.look(*self.choice(number), deep=True) for number in numbers]))

    async def all_of(self, coroutines: list[Coroutine[Any, Any, object]]) -> None:
        self.truth.num_operations += len(coroutines)
        await asyncio.gather(*coroutines)

    async def look(self, process: Exact, question: Asked, *, deep: bool) -> bool:
        """Whether there is an answer; it is judged."""
        begun_s, best = time.time(), self.truth.best.get(question.exact, 0)
        held = None if deep else process.recall(question.exact, question.scope)
        from_store = held is None
        if held is None:
            held = await process.find(question.exact, question.scope, question.partition, Terms(1.0))
        if held is not None:
            self.judge(held, question, begun_s, best if from_store else 0)
        return held is not None

    def judge(self, held: Held, question: Asked, begun_s: float, best: int) -> None:
        said = json.loads(held.proposal.answer.body)
        serial = said["serial"]
        assert said["meaning"] == question.meaning, "another's answer, or another question's"
        assert serial not in self.truth.dead, "an answer that was invalidated"
        late_s = begun_s - self.truth.ends_s[serial]
        assert late_s <= (TRAVEL_S if self.place.kind in ("redis", "postgres") else 0.002), "an answer that had expired"
        if state(held.row.made_s, held.row.stale_s, begun_s, Terms(1.0), ANYTHING) == "fresh":
            self.truth.num_hits += 1
        assert self.truth.fences[serial] >= best, "an answer of an older fence"

    # --- answering

    @rule(numbers=MANY, short=st.booleans())
    def lead(self, numbers: list[int], *, short: bool) -> None:
        """Take leases; some end before their holders come back."""
        self.run(self.all_of([self.take(number, 0.01 if short else 30.0) for number in numbers]))

    async def take(self, number: int, ttl_s: float) -> None:
        process, question = self.choice(number)
        fence = await process.lease(question.exact, ttl_s)
        if fence is not None:
            self.granted(question, fence)
            self.leases.append((number % 2, question, fence))

    def granted(self, question: Asked, fence: int) -> None:
        assert fence > self.truth.granted.get(question.exact, 0), "a fence that does not rise"
        self.truth.granted[question.exact] = fence

    @rule(numbers=MANY)
    def answer(self, numbers: list[int]) -> None:
        """Holders of leases write what they made, however late."""
        chosen = [self.leases.pop(number % len(self.leases)) for number in numbers if self.leases]
        self.run(self.all_of([self.keep(*lease, number) for lease, number in zip(chosen, numbers, strict=False)]))

    async def keep(self, at: int, question: Asked, fence: int, number: int) -> None:
        process = self.processes[at]
        await process.ready()
        serial = len(self.truth.ends_s)
        ttl_s, tags = TTLS_S[number % 3], TAGS[: number % 7 % 3]
        made_s = time.time()
        body = json.dumps({"meaning": question.meaning, "serial": serial}).encode()
        row = AnswerRow(
            question.partition,
            "json",
            body,
            None,
            "e",
            0.0,
            made_s,
            made_s + ttl_s,
            tags,
            position=process.tags.position,
        )
        self.truth.ends_s[serial], self.truth.fences[serial] = made_s + ttl_s, fence
        self.truth.tags[serial] = tags
        self.truth.serials.setdefault(question.exact, []).append(serial)
        held = process.keep(question.exact, question.scope, row, Terms(ttl_s), fence)
        self.truth.names[serial], self.truth.partitions[serial] = held.name, question.partition
        await self.written(process)
        if self.truth.granted[question.exact] == fence:
            self.truth.best[question.exact] = max(self.truth.best.get(question.exact, 0), fence)

    @rule(numbers=MANY)
    def overtake(self, numbers: list[int]) -> None:
        """Holders who sleep through their leases write after those who came in between."""
        self.lead(numbers, short=True)
        self.wait(15)
        late, self.leases = self.leases, []
        self.run(self.all_of([self.used(number ^ 1) for number in numbers]))
        self.leases = late
        self.answer(numbers)
        self.ask_the_store(numbers)

    @rule(numbers=MANY)
    def give_up(self, numbers: list[int]) -> None:
        for number in numbers[:5]:
            if self.leases:
                at, question, fence = self.leases.pop(number % len(self.leases))
                self.truth.num_operations += 1
                self.run(self.given_up(self.processes[at], question, fence))

    async def given_up(self, process: Exact, question: Asked, fence: int) -> None:
        process.give_up(question.exact, fence)
        await self.written(process)

    async def written(self, process: Exact) -> None:
        while process.num_writing:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)

    # --- what befalls them

    @rule(number=st.integers(0, 2**30))
    def invalidate(self, number: int) -> None:
        """Bump a tag, or kill one answer; seen everywhere within a poll."""
        self.truth.num_operations += 1
        if number % 2 and self.truth.names:
            serial = number % len(self.truth.names)
            same = {each for each, name in self.truth.names.items() if name == self.truth.names[serial]}
            self.run(self.bump(self.processes[number % 2], tag_of(self.truth.names[serial]), same))
        else:
            tag = TAGS[number // 2 % len(TAGS)]
            self.run(self.bump(self.processes[0], tag, {each for each, tags in self.truth.tags.items() if tag in tags}))

    async def bump(self, process: Exact, tag: str, hit: set[int]) -> None:
        await process.tags.bump(tag)
        end_s = time.monotonic() + 10
        while process.tags.unseen or len({each.tags.position for each in self.processes}) > 1:
            for each in self.processes:
                await each.tags.read()
            assert time.monotonic() < end_s
            await asyncio.sleep(0.001)
        self.truth.dead |= hit

    @rule(numbers=MANY)
    def plant(self, numbers: list[int]) -> None:
        """Lead keys of one to answers of another, and let rows say what they should not."""
        self.run(self.all_of([self.planted(number) for number in numbers if self.truth.names]))

    async def planted(self, number: int) -> None:
        process, question = self.choice(number)
        serial = number % len(self.truth.names)
        name, store = self.truth.names[serial], process.store
        assert store is not None
        if self.truth.partitions[serial] != question.partition:  # within one, another wording may lead there
            rows = [b"", b"\xc1", encode(KeyRow(name, question.scope)), encode(KeyRow(name, question.partition))]
            await store.put(b"k" + question.exact, rows[number % 4], time.time() + 0.05)

    @rule(at=st.integers(0, 1))
    def restart(self, at: int) -> None:
        """A process that begins anew remembers nothing and reads everything."""
        self.truth.num_operations += 1
        self.run(self.processes[at].close())
        self.processes[at] = self.started()
        self.leases = [lease for lease in self.leases if lease[0] != at]

    @rule(ms=st.integers(1, 25))
    def wait(self, ms: int) -> None:
        self.run(asyncio.sleep(ms / 1000))
        if ms > 20:
            self.ask_the_store(list(range(2 * len(self.asked))))

    @invariant()
    def memory_is_bounded(self) -> None:
        assert all(each.memory.used_bytes <= each.memory.limit_bytes for each in self.processes)

    def teardown(self) -> None:
        for each in self.processes:
            self.run(each.close())
        self.loop.close()
        self.totals.num_operations += self.truth.num_operations
        self.totals.num_hits += self.truth.num_hits


@pytest.mark.timeout(0 if OPERATIONS > 10_000 else 120)
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_given_what_is_not_theirs(kind: str, request: Any, tmp_path: Path) -> None:
    class Here(Tenants):
        totals, place = Truth(), place_of(kind, request, tmp_path)

    while Here.totals.num_operations < OPERATIONS:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Here,
            settings=settings(
                max_examples=5,
                stateful_step_count=50,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    logging.getLogger(__name__).warning(
        "%s: %d operations, %d hits", kind, Here.totals.num_operations, Here.totals.num_hits
    )
    assert Here.totals.num_hits > 0
