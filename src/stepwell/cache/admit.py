"""Nobody's answers push out everybody's: shares of a full memory, and how much one principal may have written."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from time import monotonic

from stepwell.store.order import Begin, Order, Weight

SHARE = 0.25
"""Of memory: whoever holds less is safe from whoever holds more."""
TRIES = 8


def fairly(begin: Begin, share: float = SHARE) -> Begin:
    """The same order among equals, but whoever holds more than `share` of the memory gives way first.

    First the principals that hold too much, then the partitions; memory that nobody else wants they may fill.
    """

    def begun(limit_bytes: int) -> Order:
        inner, weights = begin(limit_bytes), dict[bytes, Weight]()
        principals, partitions = Holders(int(limit_bytes * share)), Holders(int(limit_bytes * share))

        def add(key: bytes, weight: Weight) -> None:
            weights[key] = weight
            principals.add(weight.principal, key, weight.num_bytes)
            partitions.add(weight.partition, key, weight.num_bytes)
            inner.add(key, weight)

        def forget(key: bytes) -> None:
            weight = weights.pop(key)
            principals.drop(weight.principal, key, weight.num_bytes)
            partitions.drop(weight.partition, key, weight.num_bytes)

        def drop(key: bytes) -> None:
            forget(key)
            inner.drop(key)

        def gives_way(key: bytes) -> bool:
            if principals.over:
                return weights[key].principal in principals.over
            return not partitions.over or weights[key].partition in partitions.over

        def victim() -> bytes:
            for _ in range(TRIES):
                key = inner.victim()
                if gives_way(key):
                    forget(key)
                    return key
                inner.add(key, weights[key])  # spared: as if it had just come
            key = (principals if principals.over else partitions).oldest()
            drop(key)
            return key

        return Order(inner.touch, add, victim, drop)

    return begun


class Holders:
    """Who holds how much, and who more than allowed. The empty name is nobody's."""

    __slots__ = ("held", "most_bytes", "over", "used_bytes")

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.used_bytes: defaultdict[bytes, int] = defaultdict(int)
        self.held: defaultdict[bytes, OrderedDict[bytes, None]] = defaultdict(OrderedDict)
        self.over: set[bytes] = set()

    def add(self, owner: bytes, key: bytes, num_bytes: int) -> None:
        """Count a key to its owner."""
        if owner:
            self.held[owner][key] = None
            self.used_bytes[owner] += num_bytes
            if self.used_bytes[owner] > self.most_bytes:
                self.over.add(owner)

    def drop(self, owner: bytes, key: bytes, num_bytes: int) -> None:
        """Count it no longer."""
        if not owner:
            return
        del self.held[owner][key]
        self.used_bytes[owner] -= num_bytes
        if self.used_bytes[owner] <= self.most_bytes:
            self.over.discard(owner)
        if not self.held[owner]:
            del self.held[owner], self.used_bytes[owner]

    def oldest(self) -> bytes:
        """The oldest key of whoever holds most."""
        return next(iter(self.held[max(self.over, key=self.used_bytes.__getitem__)]))


class Allowance:
    """How many bytes each principal may still have written into a store: a bucket that fills up again in `window_s`."""

    __slots__ = ("limit_bytes", "taken", "window_s")

    def __init__(self, limit_bytes: int, window_s: float) -> None:
        self.limit_bytes, self.window_s = limit_bytes, window_s
        self.taken: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """Bytes taken, and when that was so; those that took longest ago stand first."""

    def take(self, principal: bytes, num_bytes: int, now_s: float | None = None) -> bool:
        """Take so many bytes, where there are still as many. `now_s` runs evenly, as `time.monotonic`."""
        now_s = monotonic() if now_s is None else now_s
        taken, since_s = self.taken.get(principal, (0.0, now_s))
        left = max(0.0, taken - (now_s - since_s) * self.limit_bytes / self.window_s)
        if left + num_bytes > self.limit_bytes:
            return False
        self.taken[principal] = (left + num_bytes, now_s)
        self.taken.move_to_end(principal)
        self.forget(now_s)
        return True

    def forget(self, now_s: float) -> None:
        """Whoever took nothing for a whole window has a full bucket: no need to remember."""
        while self.taken and now_s - next(iter(self.taken.values()))[1] > self.window_s:
            self.taken.popitem(last=False)
