"""Which variant a reader gets: always the same one, in the shares that the weights say."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from zlib import crc32

MAX_WEIGHT = 1 << 20
"""Largest sum of weights: products with a 32-bit hash stay exact in a double."""
_GOLDEN = 2654435761
"""Knuth's multiplier: spreads the hashes of readers whose names differ little."""


def chosen(seed: str, reader: str, weights: Sequence[int]) -> int:
    """Place of the reader's variant. The sum of the weights is 1 to `MAX_WEIGHT`."""
    sums = list(accumulate(weights))
    return place_of(sums, point(crc32(_bytes(seed + ":")), reader, sums[-1]))


def place_of(sums: Sequence[int], at: int) -> int:
    """The variant that stands at a point, by the running sums of the weights."""
    return bisect_right(sums, at)


def order(seed: str, reader: str, weights: Sequence[int]) -> list[int]:
    """Every variant that has a weight, the reader's first, the others in turn."""
    first = chosen(seed, reader, weights)
    turn = [*range(first, len(weights)), *range(first)]
    return [place for place in turn if weights[place]]


def point(start: int, reader: str, total: int) -> int:
    """Where a reader stands among `total` places; `start` is the CRC of seed and colon."""
    try:
        data = reader.encode()
    except UnicodeEncodeError:
        data = _bytes(reader)
    return (crc32(data, start) * _GOLDEN & 0xFFFFFFFF) * total >> 32


def _bytes(text: str) -> bytes:
    """UTF-8, lone surrogates as U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text).encode()
