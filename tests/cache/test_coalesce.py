"""A flight and its readers: everybody gets all of it, nobody holds up the others, memory is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.cache.coalesce import Flight, Flights
from stepwell.cache.live import AHEAD_BYTES, Live, Reader
from stepwell.errors import EngineBadReply, EngineUnavailable
from stepwell.protocols import Chunks, Take
from stepwell.types import Answer, Chunk, Outcome, Usage

LAST = Chunk(b"end", last=True)


async def source(pieces: list[bytes], *, ends: bool = True, pause: bool = False) -> AsyncGenerator[Chunk, None]:
    for piece in pieces:
        if pause:
            await asyncio.sleep(0)
        yield Chunk(piece)
    if ends:
        yield Chunk(b"usage", Usage(1, 2))
        yield LAST


def reader(live: Live) -> Reader:
    return Reader(live, lambda: None)


async def filled(live: Live, chunks: Chunks) -> None:
    await live.fill(chunks)
    live.end()


async def read(each: Reader, pauses: int = 0) -> bytes:
    told = b""
    async for chunk in each:
        told += chunk.data
        for _ in range(pauses):
            await asyncio.sleep(0)
    return told


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=60),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=6),
    st.booleans(),
)
def test_all_readers_get_all_of_it_whenever_they_come(
    pieces: list[bytes],
    readers: list[tuple[int, int]],
    pause: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    async def played() -> None:
        live = Live(10_000_000, [])

        async def come(late: int, pauses: int) -> bytes:
            for _ in range(late):
                await asyncio.sleep(0)
            return await read(reader(live), pauses)

        told = await asyncio.gather(filled(live, source(pieces, pause=pause)), *(come(*each) for each in readers))
        assert set(told[1:]) == {b"".join(pieces) + b"usage" + b"end"}
        assert live.usage == Usage(1, 2)

    asyncio.run(played())


async def test_a_source_that_breaks_off_is_an_error_for_all_and_never_an_end() -> None:
    live = Live(1000, [])
    readers = [asyncio.ensure_future(read(reader(live))) for _ in range(3)]
    with pytest.raises(EngineBadReply) as broken:
        await live.fill(source([b"a", b"b"], ends=False))
    live.end(broken.value)
    told = await asyncio.gather(*readers, return_exceptions=True)
    assert told == [broken.value] * 3


async def test_the_source_waits_for_the_fastest_reader_and_memory_is_bounded() -> None:
    made = 0

    async def endless() -> AsyncGenerator[Chunk, None]:
        nonlocal made
        for _ in range(2000):
            made += 1
            yield Chunk(b"x" * 1000)
        yield LAST

    live = Live(10, [])
    filling = asyncio.ensure_future(filled(live, endless()))
    await asyncio.sleep(0.01)
    assert made * 1000 <= AHEAD_BYTES + 2000
    fast, slow = reader(live), reader(live)
    await anext(slow)
    told = await read(fast)
    await filling
    assert len(told) == 2_000_003
    assert live.kept_bytes <= live.limit_bytes + 1000
    with pytest.raises(EngineBadReply, match="too slowly"):
        await read(slow)


async def test_a_slow_reader_does_not_slow_the_others_and_catches_up() -> None:
    live = Live(1_000_000, [])
    fast, slow = reader(live), reader(live)
    filling = asyncio.ensure_future(filled(live, source([b"x" * 1000] * 500)))
    assert len(await read(fast)) == 500_008
    await filling
    assert len(await read(slow, pauses=1)) == 500_008


async def test_who_waits_for_the_whole_lets_the_source_run_but_not_beyond_the_limit() -> None:
    flights = Flights(200_000)
    flight = flights.lead(b"k", b"p", (), 0)
    flight.want()
    landed: list[Flight] = []

    async def below() -> Outcome:
        return Outcome(Answer(form="events", chunks=source([b"x" * 1000] * 500)), ())

    flight.want()
    whole = asyncio.ensure_future(flight.ended())
    await asyncio.sleep(0)
    flight.fly(below(), landed.append)
    await whole
    assert flight.live is not None
    assert (flight.shareable, flight.over) == (False, False)
    assert len(await read(flight.reader())) == 500_008
    assert landed == [flight]
    assert flight.answer is None


async def test_an_error_before_anything_is_said_wakes_all() -> None:
    flight = Flights(1000).lead(b"k", b"p", (), 0)
    error = EngineUnavailable("no")

    async def below() -> Outcome:
        await asyncio.sleep(0)
        return Outcome(None, (), error)

    waiting = [asyncio.ensure_future(flight.begun()), asyncio.ensure_future(flight.ended())]
    flight.fly(below(), lambda _: None)
    await asyncio.gather(*waiting)
    assert (flight.over, flight.error, flight.answer) == (True, error, None)


async def test_a_defect_below_is_an_error_too_and_ends_the_flight() -> None:
    flights = Flights(1000)
    flight = flights.lead(b"k", b"p", (), 0)

    async def below() -> Outcome:
        raise KeyError("oh")

    flight.fly(below(), lambda _: None)
    assert flight.over
    assert "KeyError" in str(flight.error)
    assert not flights.flying


async def test_what_nobody_wants_is_stopped_and_joined_by_nobody() -> None:
    flights = Flights(1000)
    flight = flights.lead(b"k", b"p", (), 0)
    stopped = asyncio.Event()

    async def below() -> Outcome:
        try:
            await asyncio.sleep(1000)
        finally:
            stopped.set()
        raise AssertionError

    flight.want()
    flight.want()
    flight.fly(below(), lambda _: None)
    flight.leave()
    await asyncio.sleep(0.01)
    assert not stopped.is_set()
    flight.leave()
    assert not flights.flying
    await asyncio.sleep(0.01)
    assert stopped.is_set()
    assert flight.over


def test_a_later_flight_of_the_same_question_is_not_ended_by_the_earlier_one() -> None:
    flights = Flights(1000)
    first = flights.lead(b"k", b"p", (), 0)
    second = flights.lead(b"k", b"p", (), 1)
    first.land()
    assert flights.flying == {b"k": second}


async def test_who_asks_nearly_the_same_waits_for_a_bounded_time() -> None:
    flight = Flights(1000).lead(b"k", b"p", (), 0)
    gate = asyncio.Event()

    async def below() -> Outcome:
        await gate.wait()
        return Outcome(Answer(form="json", body=b"{}"), ())

    flight.want()
    flight.fly(below(), lambda _: None)
    assert await flight.within(0.01) is None
    waiting = asyncio.ensure_future(flight.within(100))
    await asyncio.sleep(0)
    gate.set()
    answer = await waiting
    assert answer is not None
    assert answer.body == b"{}"
    assert flight.num_wanting == 1


async def test_words_are_taken_in_the_call_that_brings_them_while_readers_keep_up() -> None:
    class Lane:
        """A source with a lane past its iteration."""

        take: Take | None = None

        def direct(self, take: Take) -> None:
            self.take = take

        def __aiter__(self) -> AsyncIterator[Chunk]:
            return self.told()

        async def told(self) -> AsyncGenerator[Chunk, None]:
            assert self.take is not None
            self.refused = 0
            for _ in range(200):
                piece = b"x" * 1000
                if not self.take(piece):
                    self.refused += 1
                    yield Chunk(piece)
            yield LAST

        async def __anext__(self) -> Chunk:
            raise NotImplementedError

        async def aclose(self) -> None:
            """Nothing to give back."""

    live, lane = Live(1_000_000, []), Lane()
    filling = asyncio.ensure_future(filled(live, lane))
    await asyncio.sleep(0.01)
    assert len(live.chunks) == AHEAD_BYTES // 1000 + 2
    assert len(await read(reader(live))) == 200_003
    await filling
    assert 1 <= lane.refused <= 5, "and otherwise left to the iteration, in order"
