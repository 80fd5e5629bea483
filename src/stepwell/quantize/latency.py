"""What a token costs in llama.cpp, for every format and shape of a matrix: its own products, timed on this machine.

Decoding one text, nearly all of the time is matrices times one vector; what else there is does not depend on formats.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from statistics import median
from time import thread_time_ns
from typing import Protocol

from msgspec import Struct

from stepwell.quantize.formats import FORMATS, PLAIN
from stepwell.quantize.ggml import TYPES, products
from stepwell.quantize.network import EMBEDDING, HEAD
from stepwell.quantize.recipe import bits

CACHE_BYTES = 4 << 20
"""So many bytes of matrices are read in turn: what a small model has, and more than a core's nearest caches hold."""
MOST_BYTES = 64 << 20
"""More than the caches of a processor hold: reading further is no different."""
ROUNDS = 9


class Product(Struct, frozen=True):
    """One measurement."""

    format: str
    rows: int
    width: int
    nanoseconds: int
    """Of CPU time on one thread, for one token; the median of the rounds."""


def measured(
    shapes: Iterable[tuple[int, int]],
    formats: Iterable[str],
    *,
    tokens: int = 1,
    footprint_bytes: int = CACHE_BYTES,
    rounds: int = ROUNDS,
) -> tuple[Product, ...]:
    """Time every format on every shape (rows, width) that it fits; formats take turns, so that all see the same noise.

    `tokens` are read at once: 1 is decoding, more are a prompt or a batch (the time is for all of them).
    Raises DistillError where the engine is not installed.
    """
    wanted = [each for each in formats if each in TYPES]
    found: list[Product] = []
    for rows, width in sorted(set(shapes)):
        fitting = [each for each in wanted if each in PLAIN or FORMATS[each].fits(width)]
        times = timed(fitting, (rows, width), tokens, min(footprint_bytes, MOST_BYTES), rounds)
        found += [Product(each, rows, width, time) for each, time in times.items()]
    return tuple(found)


def timed(
    formats: Iterable[str], shape: tuple[int, int], tokens: int, footprint_bytes: int, rounds: int
) -> dict[str, int]:
    """Nanoseconds of one product by format."""
    rows, width = shape
    with ExitStack() as stack:
        runs = {}
        for each in formats:
            num = max(2, int(footprint_bytes * 8 / (rows * width * bits(each, width))))
            runs[each] = num, stack.enter_context(products(each, rows, width, num=num, tokens=tokens))
        seen: dict[str, list[float]] = {each: [] for each in runs}
        for _ in range(rounds):
            for each, (num, run) in runs.items():
                run()  # what the others left in the caches goes
                begun = thread_time_ns()
                run()
                seen[each].append((thread_time_ns() - begun) / num)
    return {each: round(median(times)) for each, times in seen.items()}


def nanoseconds(products: Iterable[Product]) -> Mapping[tuple[str, int, int], int]:
    """Times by format, rows and width."""
    return {(each.format, each.rows, each.width): each.nanoseconds for each in products}


class Shaped(Protocol):
    """A matrix in a format."""

    @property
    def name(self) -> str:
        """Short."""

    @property
    def format(self) -> str:
        """Its format."""

    @property
    def rows(self) -> int:
        """Its outputs."""

    @property
    def width(self) -> int:
        """Its inputs."""


def costs(products: Iterable[Product], names: Collection[str]) -> Callable[[Shaped], int]:
    """Nanoseconds a token of a model's matrices; an embedding beside a head is only looked up, which is nothing."""
    times = nanoseconds(products)
    free = EMBEDDING if HEAD in names else ""
    return lambda each: 0 if each.name == free else times[each.format, each.rows, each.width]
