"""Nearly the same question, asked at the same time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepwell.cache import beside
from stepwell.cache.beside import About
from stepwell.cache.coalesce import Flight, Flights
from stepwell.cache.features import NAMES, Near
from stepwell.cache.key import Identity
from stepwell.facts.facts import facts

HERE, THERE = b"h" * 32, b"t" * 32


def vector(*parts: float) -> NDArray[np.float32]:
    made = np.zeros(8, np.float32)
    made[: len(parts)] = parts
    return made / np.linalg.norm(made)


def who(text: str, partition: bytes = HERE) -> Identity:
    return Identity(exact=text.encode(), partition=partition, text=text, principal=b"")


def flying(flights: Flights, text: str, of: NDArray[np.float32], partition: bytes = HERE) -> Flight:
    flight = flights.lead(text.encode(), partition, (), 0)
    flight.about = About(of, text)
    return flight


async def test_the_nearest_flight_of_the_same_partition_is_found() -> None:
    flights = Flights(1 << 20)
    flying(flights, "far", vector(0, 1))
    near = flying(flights, "near", vector(1, 0.2))
    flying(flights, "nearer, elsewhere", vector(1, 0.1), THERE)
    assert beside.nearest(flights, who("asked"), vector(1), 0.8) is near
    assert beside.nearest(flights, who("asked"), vector(1), 0.99) is None
    assert beside.nearest(flights, who("near"), vector(1), 0.8) is None, "nobody waits for itself"
    assert beside.nearest(flights, who("asked", THERE), vector(0, 1), 0.8) is None


async def test_the_guard_and_nearer_neighbours_have_their_say() -> None:
    flights = Flights(1 << 20)
    flight = flying(flights, "Where is the Copper Pear?", vector(1, 0.1))
    asked = facts("Whereabouts is the Copper Pear?")
    assert len(beside.features(flight, vector(1), asked, None, None, num_keys=0)) == len(NAMES)
    other = facts("Where is the Golden Fox?")
    assert beside.features(flight, vector(1), other, None, None, num_keys=0) == ()
    kept = Near(
        cosines=np.array([0.7, 0.6], np.float32),
        vectors=np.stack([vector(1, 1), vector(1, 1.2)]),
        answers=[b"a", b"b"],
        allowed=[True, True],
    )
    alone = beside.features(flight, vector(1), asked, None, None, num_keys=0)
    among = beside.features(flight, vector(1), asked, kept, None, num_keys=2)
    vote = NAMES.index("vote_share")
    assert among[vote] < alone[vote]


async def test_a_follower_waits_no_longer_than_it_wants() -> None:
    flights = Flights(1 << 20)
    flight = flying(flights, "slow", vector(1))
    outcome: Any = SimpleNamespace(answer=None)

    async def below() -> Any:
        await asyncio.sleep(5)
        return outcome

    flight.fly(below(), lambda _: None)
    flight.want()
    began_s = asyncio.get_running_loop().time()
    assert await flight.within(0.05) is None
    assert asyncio.get_running_loop().time() - began_s < 2
    flight.leave()
    await asyncio.sleep(0.01)
