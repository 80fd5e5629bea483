"""Which policy would have saved most: what a store was asked, sampled, replayed through each of them.

Spatial sampling (SHARDS; Waldspurger et al., FAST 2015): an event is kept where its key's digest is below a bound, so
that a key is seen always or never, and a cache as much smaller behaves like the whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from stepwell.cache.admit import fairly
from stepwell.cache.policies import POLICIES
from stepwell.store.memory import Memory
from stepwell.store.order import Begin, Weight

log = logging.getLogger(__name__)

NEARLY = 0.9
FULL = 256
"""The bound on a digest's last byte below which every key is."""


Event = tuple[bytes, Weight]
"""One question asked of a store, and what its answer takes and saves."""


class Trace:
    """The last events of a store: all of them while few, then those of every second, fourth … key."""

    __slots__ = ("below", "events", "limit", "num_noted")

    def __init__(self, limit: int = 32_768) -> None:
        self.events: deque[Event] = deque(maxlen=limit)
        self.limit, self.below, self.num_noted = limit, FULL, 0

    def note(self, key: bytes, weight: Weight) -> int:
        """Take an event along, where its key is one of the sampled; return the bound, which may have fallen."""
        if key[-1] >= self.below:
            return self.below
        self.events.append((key, weight))
        self.num_noted += 1
        if len(self.events) == self.limit and self.below > 1:
            self.below //= 2
            kept = [event for event in self.events if event[0][-1] < self.below]
            self.events.clear()
            self.events.extend(kept)
        return self.below

    @property
    def rate(self) -> float:
        """Share of all keys whose events are taken along."""
        return self.below / FULL


def simulate(events: Iterable[Event], begin: Begin, capacity_bytes: int) -> float:
    """Cost-weighted miss ratio: USD of the questions that missed, by USD of all. Each miss is kept at once."""
    order = begin(capacity_bytes)
    held: dict[bytes, int] = {}
    used_bytes, missed_usd, asked_usd = 0, 0.0, 0.0
    for key, weight in events:
        asked_usd += weight.usd
        if key in held:
            order.touch(key)
            continue
        missed_usd += weight.usd
        if weight.num_bytes > capacity_bytes:
            continue
        held[key] = weight.num_bytes
        used_bytes += weight.num_bytes
        order.add(key, weight)
        while used_bytes > capacity_bytes:
            used_bytes -= held.pop(order.victim())
    return missed_usd / asked_usd if asked_usd else 0.0


def compare(trace: Trace, capacity_bytes: int, policies: Mapping[str, Begin] = POLICIES) -> dict[str, float]:
    """The miss ratio that each policy would have had on what was noted, in a memory of `capacity_bytes`."""
    sampled_bytes, events = int(capacity_bytes * trace.rate), tuple(trace.events)
    return {name: simulate(events, begin, sampled_bytes) for name, begin in policies.items()}


def pick(ratios: Mapping[str, float], used: str = "lru", gain: float = 0.01) -> str:
    """The policy with the lowest miss ratio; the one in use stays where none is better by the share `gain`."""
    best = min(ratios, key=ratios.__getitem__)
    return best if ratios[best] < ratios[used] * (1 - gain) else used


async def keep_tuned(memory: Memory[Any], every_s: float = 600.0, used: str = "lru") -> None:
    """Note what a memory is asked, and go by the policy that would have saved most; look again from time to time.

    The simulation runs in a thread and takes half a second of CPU. A memory that is not full needs no policy.
    """
    trace, seen = Trace(), 0
    memory.watch(trace.note, FULL)
    while True:
        await asyncio.sleep(every_s)
        full = memory.used_bytes > memory.limit_bytes * NEARLY
        if not full or trace.num_noted - seen < trace.limit // 2:
            continue
        seen = trace.num_noted
        ratios = await asyncio.to_thread(compare, trace, memory.limit_bytes)
        best = pick(ratios, used)
        if best != used:
            log.info(
                "memory goes by %s: %.1f %% of USD missed, by %s %.1f %%",
                best,
                100 * ratios[best],
                used,
                100 * ratios[used],
            )
            memory.reorder(fairly(POLICIES[best]))
            used = best
