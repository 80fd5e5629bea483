"""Which value goes next when memory is full: four functions over keys, begun anew for a limit in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct


class Weight(Struct, frozen=True, gc=False):
    """What a value takes, and what having it is worth."""

    num_bytes: int
    usd: float = 0.0
    """USD saved each time it is asked for, times the probability that it is right."""
    principal: bytes = b""
    """Who had it made, as a digest; empty where nobody counts."""
    partition: bytes = b""
    """Whom it is for."""


class Order(Struct, frozen=True):
    """What a full memory asks. Keys are digests: the same for everybody, chosen by nobody."""

    touch: Callable[[bytes], object]
    """A key that is held was asked for: the hot path."""
    add: Callable[[bytes, Weight], object]
    """A key is held from now on."""
    victim: Callable[[], bytes]
    """Choose a key to let go; it is no longer held. At least one must be."""
    drop: Callable[[bytes], object]
    """A key that is held is no longer."""


Begin = Callable[[int], Order]
"""Makes an empty Order for so many bytes."""


def lru(limit_bytes: int) -> Order:  # noqa: ARG001 - a Begin
    """The longest unused goes first."""
    held: OrderedDict[bytes, Weight] = OrderedDict()
    return Order(held.move_to_end, held.__setitem__, lambda: held.popitem(last=False)[0], held.__delitem__)
