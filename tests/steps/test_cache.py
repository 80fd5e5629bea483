"""The cache step: what is kept, who shares a flight, what happens when somebody leaves or something dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from asked import DONE, KEEP, Desk, Engine, asked, chat, event, turns

from stepwell.cache.fresh import Terms
from stepwell.engines import replay
from stepwell.errors import EngineBadReply, EngineRefusal, EngineTimeout, EngineUnavailable, StoreError
from stepwell.store.memory_store import MemoryStore
from stepwell.types import Answer, Caller, Defer, Evidence, Proposal, Request, Usage

WHOLE = chat("Deep, I say. #1")
STALE_NOW = msgspec.structs.replace(KEEP, terms=Terms(0.001, swr_s=60, sie_s=3600))
SPARE_NOW = msgspec.structs.replace(KEEP, terms=Terms(0.001, sie_s=3600))


@pytest.fixture
async def desks() -> AsyncIterator[Callable[..., Desk]]:
    """Makes desks, and closes them."""
    made: list[Desk] = []

    def make(*given: Any, **more: Any) -> Desk:
        made.append(Desk(*given, **more))
        return made[-1]

    yield make
    for desk in made:
        await desk.close()


def gated(**more: Any) -> Engine:
    return Engine(gate=asyncio.Semaphore(0), **more)


def open_gate(engine: Engine, times: int = 100) -> None:
    assert engine.gate is not None
    for _ in range(times):
        engine.gate.release()


# --- kept


async def test_a_miss_goes_down_its_answer_is_kept_and_then_hit(desks: Any) -> None:
    desk = desks()
    assert (await desk.serve(asked())).how == ("large", "engine")
    again = await desk.serve(asked(id="2"))
    assert (again.how, again.body, again.complete) == (("cache", "hit"), WHOLE, True)
    assert again.outcome.answer is not None
    assert again.outcome.answer.saved_usd == 0.5
    assert len(desk.engine.calls) == 1


async def test_json_is_given_as_events_and_back(desks: Any) -> None:
    desk = desks()
    await desk.serve(asked())
    told = await desk.serve(asked(id="2", stream=True))
    assert told.outcome.answer is not None
    assert told.outcome.answer.form == "events"
    assert told.body.endswith(replay.DONE)
    assert b'"usage"' not in told.body
    counted = await desk.serve(asked(id="3", stream=True, stream_options={"include_usage": True}))
    assert replay.usage_of(counted.body, "events") == Usage(5, 3)
    whole = json.loads(replay.to_json(counted.body, "chat"))
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Deep, I say. #1"}


@pytest.mark.parametrize("more", [{"temperature": 0.7}, {"temperature": None}])
async def test_sampled_answers_are_kept_only_where_the_route_says_so(desks: Any, more: dict[str, Any]) -> None:
    desk = desks()
    assert await desk.cache.propose(asked(**more)) == Defer("bypass: temperature above 0")
    keeps = desks(rule=msgspec.structs.replace(KEEP, keep_sampled=True))
    await keeps.serve(asked(**more))
    assert (await keeps.serve(asked(id="2", **more))).how == ("cache", "hit")
    keeps_nothing = desks(rule=msgspec.structs.replace(KEEP, keep=False))
    assert await keeps_nothing.cache.propose(asked()) == Defer("bypass: the route keeps no answers")


async def test_what_is_not_a_whole_good_answer_is_not_kept(desks: Any) -> None:
    broken = desks(Engine(error=EngineBadReply("cut off"), dies_after=2))
    told = await broken.serve(asked(stream=True))
    assert (told.complete, type(told.error)) == (False, EngineBadReply)
    assert (await broken.serve(asked(id="2", stream=True))).how == ("large", "engine")
    small = desks(max_bytes=50)
    await small.serve(asked())
    assert (await small.serve(asked(id="2"))).how == ("large", "engine")


async def test_another_callers_question_is_another_question(desks: Any) -> None:
    desk = desks()
    await desk.serve(asked())
    assert (await desk.serve(asked(id="2", caller=Caller("acme", "otto")))).how == ("large", "engine")
    shares = desks(rule=msgspec.structs.replace(KEEP, share="tenant"))
    await shares.serve(asked())
    assert (await shares.serve(asked(id="2", caller=Caller("acme", "otto")))).how == ("cache", "hit")
    assert (await shares.serve(asked(id="3", caller=Caller("evil", "anna")))).how == ("large", "engine")


# --- in flight


@pytest.mark.parametrize("stream", [False, True])
async def test_a_thousand_equal_questions_are_one_call(desks: Any, *, stream: bool) -> None:
    desk = desks(gated())
    callers = [desk.begin(asked(id=str(number), stream=stream)) for number in range(1000)]
    await turns()
    open_gate(desk.engine)
    told = await asyncio.gather(*callers)
    assert len(desk.engine.calls) == 1
    assert {one.how for one in told} == {("large", "engine"), ("cache", "collapsed")}
    assert sum(one.how[0] == "large" for one in told) == 1
    whole = {replay.without_usage(one.body) if stream else one.body for one in told}
    assert len(whole) == 1
    assert all(one.complete for one in told)


async def test_followers_read_along_as_it_comes_and_late_ones_catch_up(desks: Any) -> None:
    desk = desks(gated())
    leader = desk.begin(asked(stream=True))
    await turns()
    early = desk.begin(asked(id="2", stream=True))
    await turns()
    open_gate(desk.engine, 1)
    await turns()
    late = desk.begin(asked(id="3", stream=True))
    json_caller = desk.begin(asked(id="4"))
    await turns()
    assert not leader.done()
    (flight,) = desk.below.flights.flying.values()
    assert flight.live is not None
    assert flight.num_wanting == 4
    assert [chunk.data for chunk in flight.live.chunks] == [event("Deep, "), event("I ")]
    open_gate(desk.engine, 1)
    told = await asyncio.gather(leader, early, late, json_caller)
    assert len(desk.engine.calls) == 1
    assert {one.body for one in told[:3]} == {told[0].body}
    assert told[0].body.endswith(DONE)
    assert json.loads(told[3].body)["choices"][0]["message"]["content"] == "Deep, I say."
    assert (await desk.serve(asked(id="5"))).how == ("cache", "hit")


async def test_a_leader_who_leaves_before_the_first_word_costs_no_second_call(desks: Any) -> None:
    desk = desks(gated())
    leader = desk.begin(asked())
    await turns()
    others = [desk.begin(asked(id=str(number))) for number in (2, 3, 4)]
    await turns()
    leader.cancel()
    others[0].cancel()
    await turns()
    open_gate(desk.engine)
    told = await asyncio.gather(*others[1:])
    assert [one.how for one in told] == [("cache", "collapsed")] * 2
    assert (len(desk.engine.calls), desk.engine.num_stopped) == (1, 0)
    entry = next(each for each in desk.entries if each.request.id == "1-rest")
    assert (entry.complete, entry.usage) == (True, Usage(5, 3)), "what the leader left is paid by an entry of its own"
    assert entry.outcome.visits[-1].step == "large"


async def test_a_leader_who_leaves_in_mid_stream_costs_no_second_call(desks: Any) -> None:
    desk = desks(gated())
    leader = desk.begin(asked(stream=True))
    await turns()
    follower = desk.begin(asked(id="2", stream=True))
    await turns()
    leader.cancel()
    await turns()
    open_gate(desk.engine)
    told = await follower
    assert told.body.count(b"data: ") == 5
    assert told.complete
    assert (len(desk.engine.calls), desk.engine.num_stopped) == (1, 0)
    assert (await desk.serve(asked(id="3"))).how == ("cache", "hit")


async def test_what_nobody_wants_any_more_is_not_generated(desks: Any) -> None:
    desk = desks(gated())
    leader = desk.begin(asked(stream=True))
    await turns()
    followers = [desk.begin(asked(id=str(number), stream=number % 2 == 0)) for number in range(2, 6)]
    await turns()
    for one in (leader, *followers):
        one.cancel()
    await turns()
    assert desk.engine.num_stopped == 1
    assert not desk.below.flights.flying
    assert not desk.cache.leading
    open_gate(desk.engine)
    assert (await desk.serve(asked(id="9"))).how == ("large", "engine")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_reaches_all_and_nobody_asks_again(desks: Any, *, stream: bool) -> None:
    error = EngineUnavailable("no")
    desk = desks(Engine(gate=asyncio.Semaphore(0), error=error, dies_after=2 if stream else -1))
    if not stream:
        desk.engine.error = None
    leader = desk.begin(asked(stream=stream))
    await turns()
    followers = [desk.begin(asked(id=str(number), stream=number != 2 and stream)) for number in range(2, 6)]
    await turns()
    if not stream:
        desk.engine.gate.acquire = fails(error)
        leader.cancel()
        await turns()
    open_gate(desk.engine)
    told = await asyncio.gather(*followers)
    assert [(one.error, one.complete) for one in told] == [(error, False)] * 4 if stream else True
    assert len(desk.engine.calls) == 1
    assert all(DONE not in one.body for one in told) or not stream


def fails(error: Exception) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


async def test_an_error_before_the_first_word_is_everybodys(desks: Any) -> None:
    desk = desks(gated())
    error = EngineTimeout("slow")

    async def generate(request: Request) -> AsyncIterator[Any]:
        desk.engine.calls.append(request)
        await desk.engine.gate.acquire()
        raise error
        yield

    desk.engine.generate = generate
    callers = [desk.begin(asked(id=str(number))) for number in range(5)]
    await turns()
    open_gate(desk.engine)
    told = await asyncio.gather(*callers)
    assert [one.error for one in told] == [error] * 5
    assert [one.how for one in told[1:]] == [("cache", "collapsed: the same question failed")] * 4
    assert len(desk.engine.calls) == 1


async def test_an_answer_too_large_to_share_is_asked_for_by_each(desks: Any) -> None:
    words = ["x" * 20_000] * 20
    desk = desks(gated(words=words), max_bytes=1000)
    leader = desk.begin(asked(stream=True))
    await turns()
    whole = desk.begin(asked(id="2"))
    await turns()
    open_gate(desk.engine, 12)
    await turns(200)
    late = desk.begin(asked(id="3", stream=True))
    await turns(200)
    assert len(desk.engine.calls) == 3
    open_gate(desk.engine, 1000)
    told = await asyncio.gather(leader, whole, late)
    assert [one.complete for one in told] == [True, True, True]
    assert len(told[0].body) == len(told[2].body) > 400_000


# --- fresh


async def test_a_stale_answer_is_given_at_once_and_asked_for_anew_once(desks: Any) -> None:
    desk = desks(Engine(), rule=STALE_NOW)
    await desk.serve(asked())
    await asyncio.sleep(0.01)
    desk.engine.gate = asyncio.Semaphore(0)
    told = [await desk.serve(asked(id=str(number))) for number in range(2, 12)]
    assert [one.how for one in told] == [("cache", "hit: stale-while-revalidate")] * 10
    assert {one.body for one in told} == {WHOLE}
    assert [call.id for call in desk.engine.calls] == ["1", "2-refresh"]
    open_gate(desk.engine)
    await turns()
    assert (await desk.serve(asked(id="20"))).body == chat("Deep, I say. #2")
    entry = next(each for each in desk.entries if each.request.id == "2-refresh")
    assert [(visit.step, visit.verdict, visit.reason) for visit in entry.outcome.visits] == [
        ("cache", "deferred", "refresh: stale"),
        ("large", "answered", "engine"),
    ]
    assert (entry.complete, entry.usage) == (True, Usage(5, 3))


async def test_a_dear_answer_is_made_anew_before_it_is_stale(desks: Any) -> None:
    desk = desks(Engine(), rule=msgspec.structs.replace(KEEP, terms=Terms(60, early=1e12)))
    await desk.serve(asked())
    told = await desk.serve(asked(id="2"))
    assert (told.how, told.body) == (("cache", "hit"), WHOLE)
    assert [call.id for call in desk.engine.calls] == ["1", "2-refresh"]
    assert (await desk.serve(asked(id="3"))).body == chat("Deep, I say. #2")


async def test_a_stale_answer_of_the_store_is_asked_for_anew_by_its_first_reader(desks: Any) -> None:
    store = MemoryStore(10_000_000)
    await desks(store=store, rule=STALE_NOW).serve(asked())
    await asyncio.sleep(0.01)
    desk = desks(gated(), store=store, rule=STALE_NOW)
    told = [await desk.serve(asked(id=str(number))) for number in range(2, 5)]
    assert [one.how for one in told] == [("cache", "hit: stale-while-revalidate")] * 3
    assert [call.id for call in desk.engine.calls] == ["2-refresh"]


async def test_a_refresh_that_fails_costs_nobody_the_stale_answer(desks: Any) -> None:
    desk = desks(Engine(), rule=STALE_NOW)
    await desk.serve(asked())
    await asyncio.sleep(0.01)
    desk.engine.error = EngineUnavailable("no")
    for number in range(2, 6):
        assert (await desk.serve(asked(id=str(number)))).body == WHOLE
    assert len(desk.engine.calls) == 2, "not again within a second"
    assert [each.complete for each in desk.entries if each.request.id == "2-refresh"] == [False]


OUTAGES = [EngineUnavailable("no"), EngineTimeout("slow"), EngineBadReply("odd")]
REFUSED = EngineRefusal("no", engine="e", status=400, body=b"{}")
BUSY = EngineRefusal("busy", engine="e", status=429, body=b"{}")


@pytest.mark.parametrize("error", [*OUTAGES, BUSY])
async def test_where_the_engines_fail_a_stale_answer_is_better_than_none(desks: Any, error: Any) -> None:
    desk = desks(Engine(), rule=SPARE_NOW)
    await desk.serve(asked())
    await asyncio.sleep(0.01)
    desk.engine.error = error
    told = await desk.serve(asked(id="2"))
    assert (told.how, told.body) == (("cache", "stale-if-error"), WHOLE)
    assert [visit.verdict for visit in told.outcome.visits] == ["deferred", "failed", "answered"]


async def test_a_question_that_is_refused_is_refused(desks: Any) -> None:
    desk = desks(Engine(), rule=SPARE_NOW)
    await desk.serve(asked())
    await asyncio.sleep(0.01)
    desk.engine.error = REFUSED
    assert (await desk.serve(asked(id="2"))).error is REFUSED


@pytest.mark.parametrize(
    ("control", "how"),
    [
        (b"no-store", ("large", "engine")),
        (b"no-cache", ("large", "engine")),
        (b"max-age=0", ("large", "engine")),
        (b"max-age=1000", ("cache", "hit")),
        (b"min-fresh=1000", ("large", "engine")),
        (b"max-stale=1000", ("cache", "hit")),
        (b"nonsense, max-age=, =3", ("cache", "hit")),
        (b"\xff\xfe", ("cache", "hit")),
    ],
)
async def test_a_caller_may_only_tighten(desks: Any, control: bytes, how: tuple[str, str]) -> None:
    desk = desks()
    await desk.serve(asked())
    await asyncio.sleep(0.002)
    assert (await desk.serve(asked(id="2", headers={b"cache-control": control}))).how == how
    again = await desk.serve(asked(id="3"))
    newer = how[0] == "large" and control != b"no-store"
    assert again.body == (chat("Deep, I say. #2") if newer else WHOLE)


async def test_who_wants_nothing_cached_joins_no_flight(desks: Any) -> None:
    desk = desks(gated())
    leader = desk.begin(asked())
    await turns()
    other = desk.begin(asked(id="2", headers={b"cache-control": b"no-cache"}))
    await turns()
    assert len(desk.engine.calls) == 2
    open_gate(desk.engine)
    await asyncio.gather(leader, other)


async def test_stale_and_spare_answers_are_not_for_callers_who_want_fresh_ones(desks: Any) -> None:
    desk = desks(Engine(), rule=STALE_NOW)
    await desk.serve(asked())
    await asyncio.sleep(0.01)
    desk.engine.error = error = EngineUnavailable("no")
    for control in (b"max-age=0", b"max-stale=0, stale-if-error=0", b"no-cache"):
        assert (await desk.serve(asked(id="2", headers={b"cache-control": control}))).error is error


# --- tags


async def test_a_bump_kills_at_once_what_carries_the_tag_and_nothing_else(desks: Any) -> None:
    desk = desks()
    prices, opening = {b"stepwell-tags": b"doc:prices, doc:7"}, {b"stepwell-tags": b"doc:hours"}
    await desk.serve(asked(headers=prices))
    await desk.serve(asked(id="2", messages=[{"role": "user", "content": "open?"}], headers=opening))
    await desk.tags.bump("doc:7")
    assert (await desk.serve(asked(id="3", headers=prices))).how == ("large", "engine")
    assert (await desk.serve(asked(id="4", headers=prices))).how == ("cache", "hit")
    again = asked(id="5", messages=[{"role": "user", "content": "open?"}])
    assert (await desk.serve(again)).how == ("cache", "hit")
    await desk.tags.bump("model:well")
    assert (await desk.serve(asked(id="6"))).how == ("large", "engine")


async def test_who_depends_on_more_than_an_answer_says_is_not_given_it(desks: Any) -> None:
    desk = desks()
    await desk.serve(asked())
    tagged = {b"stepwell-tags": b"doc:1"}
    assert (await desk.serve(asked(id="2", headers=tagged))).how == ("large", "engine")
    assert (await desk.serve(asked(id="3", headers=tagged))).how == ("cache", "hit")
    assert (await desk.serve(asked(id="4"))).how == ("cache", "hit")


async def test_a_bump_during_a_flight_keeps_nothing_and_lets_nobody_join(desks: Any) -> None:
    desk = desks(gated())
    leader = desk.begin(asked())
    await turns()
    await desk.tags.bump("model:well")
    after = desk.begin(asked(id="2"))
    await turns()
    assert len(desk.engine.calls) == 2
    open_gate(desk.engine)
    assert (await leader).body == WHOLE
    assert (await after).body == chat("Deep, I say. #2")
    assert (await desk.serve(asked(id="3"))).body == chat("Deep, I say. #2")


# --- several processes


async def test_two_processes_ask_once_and_the_other_takes_the_row(desks: Any) -> None:
    store = MemoryStore(10_000_000)
    first, second = desks(gated(), store=store, lease_s=10), desks(Engine(), store=store, lease_s=10)
    leader = first.begin(asked())
    await turns()
    follower = second.begin(asked(id="2"))
    await asyncio.sleep(0.1)
    assert not follower.done()
    open_gate(first.engine)
    assert (await leader).how == ("large", "engine")
    told = await follower
    assert (told.how, told.body) == (("cache", "collapsed"), WHOLE)
    assert second.engine.calls == []
    assert (await second.serve(asked(id="3"))).how == ("cache", "hit")


async def test_where_the_one_that_asks_fails_the_other_asks_at_once(desks: Any) -> None:
    store = MemoryStore(10_000_000)
    first = desks(gated(), store=store, lease_s=1000)
    second = desks(Engine(), store=store, lease_s=1000)
    leader = first.begin(asked())
    await turns()
    follower = second.begin(asked(id="2"))
    await asyncio.sleep(0.05)
    leader.cancel()
    told = await follower
    assert told.how == ("large", "engine")
    assert len(second.engine.calls) == 1


async def test_the_lease_of_a_dead_process_ends_and_its_late_answer_is_not_kept(desks: Any) -> None:
    store = MemoryStore(10_000_000)
    first = desks(gated(), store=store, lease_s=0.2)
    second = desks(Engine(words=("Another ", "one.")), store=store, lease_s=0.2)
    leader = first.begin(asked())
    await turns()
    assert (await second.serve(asked(id="2"))).how == ("large", "engine")
    open_gate(first.engine)
    assert (await leader).body == WHOLE
    await turns()
    third = await desks(Engine(), store=store).serve(asked(id="3"))
    assert third.how == ("cache", "hit")
    assert third.body != WHOLE, "whoever asked last has the last word"


class Gone(MemoryStore):
    """A store that is there, then is not."""

    gone = False

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        self.check()
        return await super().get(key)

    async def lease(self, key: bytes, ttl_s: float) -> int | None:
        self.check()
        return await super().lease(key, ttl_s)

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        self.check()
        await super().put(key, value, expires_s, fence)

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        self.check()
        return await super().since(log, position, limit)

    def check(self) -> None:
        if self.gone:
            raise StoreError("gone")


async def test_without_its_store_a_request_goes_on_as_a_miss_and_says_so(desks: Any) -> None:
    store = Gone(10_000_000)
    desk = desks(store=store, lease_s=10)
    await desk.serve(asked())
    store.gone = True
    other = asked(id="2", messages=[{"role": "user", "content": "other"}])
    told = await desk.serve(other)
    assert [visit.reason for visit in told.outcome.visits] == ["miss: store-unavailable", "engine"]
    assert (await desk.serve(msgspec.structs.replace(other, id="3"))).how == ("cache", "hit"), "memory has it"
    assert (await desk.serve(asked(id="4"))).how == ("cache", "hit")
    store.gone = False
    desk.exact.rests_until_s = 0.0
    third = asked(id="5", messages=[{"role": "user", "content": "third"}])
    told = await desk.serve(third)
    assert told.outcome.visits[0].reason == "miss"


async def test_a_store_that_goes_in_mid_request_costs_the_row_only(desks: Any) -> None:
    store = Gone(10_000_000)
    desk = desks(gated(), store=store, lease_s=10)
    leader = desk.begin(asked())
    await turns()
    store.gone = True
    open_gate(desk.engine)
    assert (await leader).body == WHOLE
    assert (await desk.serve(asked(id="2"))).how == ("cache", "hit")


# --- by meaning


class Meant:
    """Proposes one answer by meaning, and notes what was kept."""

    def __init__(self, says: Proposal | Defer) -> None:
        self.says = says
        self.num_asked = 0
        self.num_kept = 0

    async def propose(self, _asking: Any) -> Proposal | Defer:
        self.num_asked += 1
        await asyncio.sleep(0)
        return self.says

    def kept(self, *_: Any) -> None:
        self.num_kept += 1


MEANT = Answer(form="json", body=chat("meant"), usage=Usage(1, 1), engine="other")


@pytest.mark.parametrize("kind", ["exact", "semantic"])
async def test_what_is_meant_is_served_or_withheld_for_all_who_ask(desks: Any, kind: Any) -> None:
    from stepwell.cache.key import identity  # noqa: PLC0415

    desk = desks(gated())
    meant = desk.cache.meaning = desk.below.meaning = Meant(Proposal(MEANT, Evidence(kind, "near")))
    desk.cache.identify = lambda scope, exact, request: identity(scope, exact, request, embedder="e", secret=b"s")
    open_gate(desk.engine)
    told = await asyncio.gather(*(desk.begin(asked(id=str(number))) for number in range(10)))
    assert meant.num_asked == 1
    served = kind == "exact"
    assert len(desk.engine.calls) == (0 if served else 1)
    assert {one.body for one in told} == {MEANT.body if served else WHOLE}
    assert meant.num_kept == (0 if served else 1)
    assert len(told[0].outcome.withheld) == (0 if served else 1)


async def test_a_search_by_meaning_that_breaks_costs_its_answer_only(desks: Any) -> None:
    class Broken(Meant):
        async def propose(self, *_: Any) -> Proposal | Defer:
            raise KeyError("oh")

    from stepwell.cache.key import identity  # noqa: PLC0415

    desk = desks(gated())
    desk.cache.meaning = Broken(Defer(""))
    desk.cache.identify = lambda scope, exact, request: identity(scope, exact, request, embedder="e", secret=b"s")
    callers = [desk.begin(asked(id=str(number))) for number in range(10)]
    await turns()
    open_gate(desk.engine)
    assert {one.body for one in await asyncio.gather(*callers)} == {WHOLE}
    assert len(desk.engine.calls) == 1
