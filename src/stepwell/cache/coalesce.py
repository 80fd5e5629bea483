"""One upstream call for any number of equal requests in flight: the first leads, the others wait for its answer."""

from __future__ import annotations

import asyncio

from stepwell.types import Answer

Landing = Answer | Exception | None
"""What a flight ended with: a complete answer, the error of its leader, or nothing that can be shared."""


class Flights:
    """Questions being answered right now, by key."""

    __slots__ = ("flying",)

    def __init__(self) -> None:
        self.flying: dict[bytes, Flight] = {}

    def leads(self, key: bytes, request_id: str) -> bool:
        """Make this request the leader, unless the question is being answered already."""
        if key in self.flying:
            return False
        self.flying[key] = Flight(request_id)
        return True

    async def wait(self, key: bytes) -> Landing:
        """Wait for the leader of a question to end."""
        flight = self.flying[key]
        if flight.landed is None:
            flight.landed = asyncio.get_running_loop().create_future()
        return await asyncio.shield(flight.landed)

    def land(self, key: bytes, request_id: str, landing: Landing) -> None:
        """Tell those who wait how it ended. Only the leader can: anybody else's call changes nothing."""
        flight = self.flying.get(key)
        if flight is None or flight.leader != request_id:
            return
        del self.flying[key]
        if flight.landed is not None:
            flight.landed.set_result(landing)


class Flight:
    """One question being answered; the future is made only when somebody else waits for it."""

    __slots__ = ("landed", "leader")

    def __init__(self, leader: str) -> None:
        self.leader = leader
        self.landed: asyncio.Future[Landing] | None = None
