"""Five ways to choose what goes when memory is full. Which is best depends on the demand: `simulate.py` finds out.

Each is a function from a limit in bytes to four functions over keys (`store/order.py`).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from stepwell.store.order import Begin, Order, Weight, lru

ENTRY_BYTES = 1024
"""What an entry is assumed to take where the size of a sketch is chosen."""
MOST_COUNTED = 15
MOST_TOUCHED = 4096
"""Hits that wait to be counted until something is added, as in Caffeine: of more than so many, the first are not."""


def sieve(limit_bytes: int) -> Order:  # noqa: ARG001 - a Begin
    """SIEVE (Zhang et al., NSDI 2024): a queue, and a hand that passes once over whatever was asked for again."""
    end = b""
    older: dict[bytes, bytes] = {end: end}
    newer: dict[bytes, bytes] = {end: end}
    asked: dict[bytes, bool] = {}
    hand = end

    def add(key: bytes, weight: Weight) -> None:  # noqa: ARG001 - SIEVE weighs nothing
        newest = older[end]
        older[key], newer[key] = newest, end
        newer[newest] = older[end] = key
        asked[key] = False

    def drop(key: bytes) -> None:
        nonlocal hand
        before, after = older.pop(key), newer.pop(key)
        newer[before], older[after] = after, before
        del asked[key]
        if hand == key:
            hand = after

    def victim() -> bytes:
        nonlocal hand
        key = hand or newer[end]
        while asked[key]:
            asked[key] = False
            key = newer[key] or newer[end]
        hand = newer[key]
        drop(key)
        return key

    def touch(key: bytes) -> None:
        asked[key] = True

    return Order(touch, add, victim, drop)


def s3_fifo(limit_bytes: int) -> Order:
    """S3-FIFO (Yang et al., SOSP 2023): a small queue sifts what is asked for once from what is worth a place."""
    small, main, ghosts = Queue(), Queue(), Queue()
    small_limit = limit_bytes // 10
    asked: dict[bytes, int] = {}

    def touch(key: bytes) -> None:
        if (count := asked[key]) < 3:  # noqa: PLR2004 - two bits, as in the paper
            asked[key] = count + 1

    def add(key: bytes, weight: Weight) -> None:
        asked[key] = 0
        known = ghosts.take(key) is not None
        (main if known else small).push(key, weight.num_bytes)

    def drop(key: bytes) -> None:
        del asked[key]
        if small.take(key) is None:
            main.take(key)

    def sifted() -> bytes | None:
        key, num_bytes = small.oldest()
        if asked[key] > 1:
            asked[key] = 0
            main.push(key, num_bytes)
            return None
        ghosts.push(key, num_bytes)
        while ghosts.num_bytes > limit_bytes - small_limit:
            ghosts.oldest()
        return key

    def spared() -> bytes | None:
        key, num_bytes = main.oldest()
        if not asked[key]:
            return key
        asked[key] -= 1
        main.push(key, num_bytes)
        return None

    def victim() -> bytes:
        key = None
        while key is None:
            key = sifted() if small.keys and (small.num_bytes > small_limit or not main.keys) else spared()
        del asked[key]
        return key

    return Order(touch, add, victim, drop)


def w_tinylfu(limit_bytes: int) -> Order:
    """W-TinyLFU (Einziger et al., ACM TOS 2017): a newcomer takes a place only from what is asked for less often."""
    window, probation, protected = Queue(), Queue(), Queue()
    window_limit = max(1, limit_bytes // 100)
    protected_limit = (limit_bytes - window_limit) * 8 // 10
    seen, often = counted(limit_bytes)

    touched: deque[bytes] = deque(maxlen=MOST_TOUCHED)

    def catch_up(key: bytes) -> None:
        seen(key)
        if key in protected.keys:
            protected.keys.move_to_end(key)
        elif key in window.keys:
            window.keys.move_to_end(key)
        elif (num_bytes := probation.take(key)) is not None:
            protected.push(key, num_bytes)
            while protected.num_bytes > protected_limit and len(protected.keys) > 1:
                probation.push(*protected.oldest())

    def add(key: bytes, weight: Weight) -> None:
        while touched:
            catch_up(touched.popleft())
        seen(key)
        window.push(key, weight.num_bytes)
        while window.num_bytes > window_limit and used_bytes() <= limit_bytes:
            probation.push(*window.oldest())

    def used_bytes() -> int:
        return window.num_bytes + probation.num_bytes + protected.num_bytes

    def drop(key: bytes) -> None:
        if window.take(key) is None and protected.take(key) is None:
            probation.take(key)

    def victim() -> bytes:
        loser = next(iter(probation.keys or protected.keys or window.keys))
        if window.num_bytes > window_limit and loser not in window.keys:
            newcomer, num_bytes = window.oldest()
            probation.push(newcomer, num_bytes)
            loser = loser if often(newcomer) > often(loser) else newcomer
        drop(loser)
        return loser

    return Order(touched.append, add, victim, drop)


def dearest(limit_bytes: int) -> Order:
    """What saves most per byte stays: GreedyDual-Size-Frequency (Cherkasova, 1998), in USD.

    Worth = clock when last asked for + how often x USD saved / bytes; the clock is half the worth of the last that
    went (all of it in the paper): how often is counted in W-TinyLFU's sketch, which ages by itself and remembers beyond
    eviction.
    """
    held: dict[bytes, list[float]] = {}
    heap: list[tuple[float, bytes]] = []
    clock = 0.0
    seen, often = counted(limit_bytes)

    touched: deque[bytes] = deque(maxlen=MOST_TOUCHED)

    def catch_up(key: bytes) -> None:
        seen(key)
        if key in held:
            held[key][0] = clock

    def add(key: bytes, weight: Weight) -> None:
        while touched:
            catch_up(touched.popleft())
        seen(key)
        held[key] = [clock, weight.usd / weight.num_bytes]
        heapq.heappush(heap, (worth(key), key))
        if len(heap) > 2 * len(held) + 64:
            heap[:] = [(worth(each), each) for each in held]
            heapq.heapify(heap)

    def worth(key: bytes) -> float:
        asked, density = held[key]
        return asked + often(key) * density

    def victim() -> bytes:
        nonlocal clock
        while True:
            noted, key = heapq.heappop(heap)
            if key not in held:
                continue
            now = worth(key)
            if now > noted:  # asked for since: it goes back to where it now belongs
                heapq.heappush(heap, (now, key))
                continue
            clock = max(clock, now / 2)
            del held[key]
            return key

    return Order(touched.append, add, victim, held.__delitem__)


class Queue:
    """Keys in the order they came, and their bytes."""

    __slots__ = ("keys", "num_bytes")

    def __init__(self) -> None:
        self.keys: OrderedDict[bytes, int] = OrderedDict()
        self.num_bytes = 0

    def push(self, key: bytes, num_bytes: int) -> None:
        """Add a key at the end."""
        self.keys[key] = num_bytes
        self.num_bytes += num_bytes

    def oldest(self) -> tuple[bytes, int]:
        """Take the first key out, with its bytes."""
        key, num_bytes = self.keys.popitem(last=False)
        self.num_bytes -= num_bytes
        return key, num_bytes

    def take(self, key: bytes) -> int | None:
        """Take a key out, wherever it stands; its bytes, or None where it is not here."""
        num_bytes = self.keys.pop(key, None)
        self.num_bytes -= num_bytes or 0
        return num_bytes


def counted(limit_bytes: int) -> tuple[Callable[[bytes], None], Callable[[bytes], int]]:
    """Count keys roughly, in at most a sixteenth of the limit and 4 MiB: (one more of a key, how many lately).

    A count-min sketch of two rows whose counts are halved from time to time (TinyLFU's reset). Python's own hash of
    bytes has a secret of its process: nobody can make two keys collide.
    """
    size = 1 << max(10, min(22, (64 * limit_bytes // ENTRY_BYTES).bit_length()))
    counts, mask, halves, num_seen = bytearray(size), size - 1, bytes(each >> 1 for each in range(256)), 0

    def seen(key: bytes) -> None:
        nonlocal num_seen, counts
        place = hash(key)
        first, second = place & mask, (place >> 24) & mask
        count = min(counts[first], counts[second])
        if count < MOST_COUNTED:
            counts[first] = max(counts[first], count + 1)
            counts[second] = max(counts[second], count + 1)
        num_seen += 1
        if num_seen >= size // 2:
            counts, num_seen = counts.translate(halves), num_seen // 2

    def often(key: bytes) -> int:
        place = hash(key)
        return min(counts[place & mask], counts[(place >> 24) & mask])

    return seen, often


POLICIES: Mapping[str, Begin] = {
    "lru": lru,
    "sieve": sieve,
    "s3_fifo": s3_fifo,
    "w_tinylfu": w_tinylfu,
    "dearest": dearest,
}
