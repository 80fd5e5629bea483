"""Codes and scales as the bytes that llama.cpp computes with: the block layouts of ggml-common.h, in numpy.

Nothing is rounded here. A matrix on its grid goes into the file as it is, which writing its decoded weights through a
quantizer would not do: that looks for scales of its own, and moves a few per cent of the values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepwell.errors import DistillError

if TYPE_CHECKING:
    from stepwell.quantize.grids import Coded

Bytes = NDArray[np.uint8]
Whole = NDArray[np.int32]
HALF_BLOCK = 128
"""K-quants store a block of 256 in two halves."""


def packed(coded: Coded) -> Bytes:
    """A matrix (rows, width) as ggml's blocks, (rows, bytes). Raises DistillError for a format that GGUF has not."""
    format_ = coded.format
    layout = LAYOUTS.get(format_.name)
    if layout is None:
        raise DistillError(f"GGUF has no {format_.name}: {', '.join(LAYOUTS)}")
    rows, width = coded.codes.shape
    if not format_.fits(width):
        raise DistillError(f"{format_.name} takes {format_.block} at a time, and rows are {width} wide")
    codes = whole(coded.codes).reshape(-1, format_.block)
    if codes.min(initial=format_.low) < format_.low or codes.max(initial=format_.high) > format_.high:
        raise DistillError(f"a code lies outside {format_.low} to {format_.high}, which {format_.name} cannot hold")
    parts = layout(codes, coded.grid)
    return np.concatenate(parts, axis=1, dtype=np.uint8).reshape(rows, -1)


# --- blocks of 32


def q8_0(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401 - Grid, whose module imports torch
    """16-bit step, a byte a weight."""
    return [halves(grid.scale), codes.astype(np.int8).view(np.uint8)]


def q4_0(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """16-bit step; the block's first half in the low four bits, the second in the high ones."""
    return [halves(grid.scale), nibbles(codes + 8)]


def q4_1(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """The same with a 16-bit floor."""
    return [halves(grid.scale), halves(grid.base), nibbles(codes)]


def q5_0(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """16-bit step, the 32 fifth bits together, then the lower four."""
    return [halves(grid.scale), fifth_bits(codes + 16), nibbles(codes + 16)]


def q5_1(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """The same with a 16-bit floor."""
    return [halves(grid.scale), halves(grid.base), fifth_bits(codes), nibbles(codes)]


def nibbles(codes: Whole) -> Bytes:
    """Codes (blocks, 32) with weight i in the low and i + 16 in the high four bits of byte i."""
    return stacked(codes.reshape(-1, 2, 16) & 15, 4)


def fifth_bits(codes: Whole) -> Bytes:
    """The fifth bits of codes (blocks, 32), weight i's as bit i of a little-endian 32-bit number."""
    return np.packbits((codes >> 4 & 1).astype(np.uint8), axis=1, bitorder="little")


# --- blocks of 256


def q2_k(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """Four-bit steps and floors side by side, two bits a weight, the two 16-bit scales."""
    steps, floors = whole(grid.steps).reshape(-1, 16), whole(grid.floors).reshape(-1, 16)
    return [(steps | floors << 4).astype(np.uint8), pairs(codes), halves(grid.scale), halves(grid.base)]


def q3_k(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """The third bits, two bits a weight, sixteen six-bit steps in twelve bytes, the 16-bit scale."""
    lifted = codes + 4
    high = stacked((lifted >> 2).reshape(-1, 8, 32), 1)
    steps = whole(grid.steps).reshape(-1, 16) + 32
    low_bits = steps[:, :8] & 15 | (steps[:, 8:] & 15) << 4
    high_bits = stacked((steps >> 4).reshape(-1, 4, 4), 2)
    return [high, pairs(lifted & 3), low_bits.astype(np.uint8), high_bits, halves(grid.scale)]


def q4_k(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """The two 16-bit scales, eight six-bit steps and floors, four bits a weight."""
    return [halves(grid.scale), halves(grid.base), sixes(grid), fours(codes)]


def q5_k(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """The same with the fifth bits before the other four."""
    high = stacked((codes >> 4).reshape(-1, 8, 32), 1)
    return [halves(grid.scale), halves(grid.base), sixes(grid), high, fours(codes & 15)]


def q6_k(codes: Whole, grid: Any) -> list[Bytes]:  # noqa: ANN401
    """Lower four bits, upper two, a signed byte a step, the 16-bit scale."""
    lifted = (codes + 32).reshape(-1, 2, 4, 32)
    low = lifted & 15
    low = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, HALF_BLOCK)
    steps = whole(grid.steps).reshape(-1, 16).astype(np.int8).view(np.uint8)
    return [low.astype(np.uint8), pairs(codes + 32 >> 4), steps, halves(grid.scale)]


def pairs(codes: Whole) -> Bytes:
    """Two-bit codes (blocks, 256): byte i of a half holds its weights i, i + 32, i + 64 and i + 96."""
    return stacked(codes.reshape(-1, 4, 32), 2).reshape(-1, 64)


def fours(codes: Whole) -> Bytes:
    """Four-bit codes (blocks, 256): byte i of 64 weights holds i and i + 32."""
    return stacked(codes.reshape(-1, 2, 32), 4).reshape(-1, HALF_BLOCK)


def sixes(grid: Any) -> Bytes:  # noqa: ANN401
    """Eight six-bit steps and floors in twelve bytes: four of each whole, of the rest the upper bits above those."""
    steps, floors = whole(grid.steps).reshape(-1, 8), whole(grid.floors).reshape(-1, 8)
    first = steps[:, :4] | (steps[:, 4:] >> 4) << 6
    second = floors[:, :4] | (floors[:, 4:] >> 4) << 6
    third = steps[:, 4:] & 15 | (floors[:, 4:] & 15) << 4
    return np.concatenate([first, second, third], axis=1).astype(np.uint8)


def stacked(codes: Whole, bits: int) -> Bytes:
    """(blocks, layers, bytes) with each layer so many bits above the one before: (blocks, bytes)."""
    shifts = bits * np.arange(codes.shape[1])
    joined: Whole = np.bitwise_or.reduce(codes << shifts[:, None], axis=1)
    return joined.astype(np.uint8)


# --- numbers


def whole(numbers: Any) -> Whole:  # noqa: ANN401 - a torch tensor or an array
    """Whole numbers that are kept as floats."""
    return np.asarray(numbers, np.float32).astype(np.int32)


def halves(numbers: Any) -> Bytes:  # noqa: ANN401
    """16-bit numbers that are kept in 32 bits, one a block: (blocks, 2 bytes). Raises DistillError for others."""
    held = np.asarray(numbers, np.float32)
    with np.errstate(over="ignore"):
        half = held.astype("<f2")
    if not np.isfinite(half).all() or not np.array_equal(half.astype(np.float32), held):
        raise DistillError("a scale is no 16-bit number: NaN, infinite, or rounded nowhere")
    return half.reshape(-1, 1).view(np.uint8)


LAYOUTS: dict[str, Callable[[Whole, Any], list[Bytes]]] = {
    "Q8_0": q8_0,
    "Q6_K": q6_k,
    "Q5_K": q5_k,
    "Q5_1": q5_1,
    "Q5_0": q5_0,
    "Q4_K": q4_k,
    "Q4_1": q4_1,
    "Q4_0": q4_0,
    "Q3_K": q3_k,
    "Q2_K": q2_k,
}
