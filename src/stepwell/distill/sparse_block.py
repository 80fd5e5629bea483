"""Rows of sparse logits as bytes: every column by itself, split into planes of bytes, all compressed together.

A log-probability l is one byte, round(255 * sqrt(-l / 20)): exact near 0, where the mass is, and coarse where there is
none. Ids stand likeliest first, so that a place's levels are steps that only go down; its token is told by its rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import zstandard
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.distill.topk import Floats, Ints, TopK

LEVELS, LOWEST = 255, -20.0
ELSEWHERE = 255
"""The rank of a token that is none of its place's ids."""
ZSTD_LEVEL = 19


class Block(Struct, frozen=True, eq=False):
    """Rows one behind another."""

    starts: Ints
    """Where each row's tokens begin, and where the last ones end."""
    token_ids: Ints
    first: Ints
    """Where each token's ids begin, and where the last ones end."""
    ids: Ints
    levels: NDArray[np.uint8]
    rest: NDArray[np.uint8]

    @property
    def num_bytes(self) -> int:
        """In memory."""
        columns = (self.starts, self.token_ids, self.first, self.ids, self.levels, self.rest)
        return sum(column.nbytes for column in columns)


def level_of(logp: Floats) -> NDArray[np.uint8]:
    """The nearest level; -inf is the lowest."""
    depth = np.clip(-logp.astype(np.float64), 0.0, -LOWEST)
    return np.asarray(np.rint(LEVELS * np.sqrt(depth / -LOWEST)), np.uint8)


LOGP = (LOWEST * (np.arange(LEVELS + 1) / LEVELS) ** 2).astype(np.float32)
"""The log-probability of each level."""


def packed(rows: Sequence[TopK], vocabulary: int) -> bytes:
    """A block's bytes: each column in planes, all compressed together."""
    wide = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    used = [np.isfinite(row.logp) for row in rows]
    token_ids: Ints = np.concatenate([row.token_ids for row in rows]).astype(wide)
    num_used = np.concatenate([each.sum(axis=1) for each in used]).astype(np.uint8)
    ids: Ints = np.concatenate([row.ids[each] for row, each in zip(rows, used, strict=True)]).astype(wide)
    levels = np.concatenate([level_of(row.logp[each]) for row, each in zip(rows, used, strict=True)])
    ranks = rank_of(token_ids, begins(num_used), ids)
    columns: tuple[Ints, ...] = (
        np.array([len(row.token_ids) for row in rows], np.uint32),
        ranks,
        token_ids[ranks == ELSEWHERE],
        num_used,
        ids,
        steps_of(levels, begins(num_used)),
        np.concatenate([level_of(row.rest_logp) for row in rows]),
    )
    data = msgspec.msgpack.encode([planes(column) for column in columns])
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(data)


def rank_of(token_ids: Ints, first: Ints, ids: Ints) -> NDArray[np.uint8]:
    """Which of its place's ids each token is (it mostly is the first); ELSEWHERE where it is none of them."""
    places = np.repeat(np.arange(len(token_ids)), np.diff(first))
    found = np.flatnonzero(ids == token_ids[places])
    ranks = np.full(len(token_ids), ELSEWHERE, np.uint8)
    ranks[places[found]] = found - first[places[found]]
    return ranks


def tokens_of(ranks: Ints, elsewhere: Ints, first: Ints, ids: Ints) -> Ints:
    """The tokens whose ranks these are."""
    told = ranks == ELSEWHERE
    token_ids = np.empty(len(ranks), ids.dtype)
    token_ids[told] = elsewhere
    token_ids[~told] = ids[first[:-1][~told] + ranks[~told]]
    return token_ids


def steps_of(levels: NDArray[np.uint8], first: Ints) -> NDArray[np.uint8]:
    """Each place's first level, and how much lower each next one is: small numbers."""
    steps = np.diff(levels, prepend=levels[:0].dtype.type(0)) if len(levels) else levels.copy()
    begin = first[:-1][np.diff(first) > 0]
    steps[begin] = levels[begin]
    return steps


def levels_of(steps: NDArray[np.uint8], first: Ints) -> NDArray[np.uint8]:
    """The levels whose steps these are."""
    num = np.diff(first)
    total = np.cumsum(steps, dtype=np.int64)
    before = np.concatenate([[0], total])[first[:-1]]
    return np.asarray(total - np.repeat(before, num), np.uint8)


def planes(column: Ints) -> bytes:
    """First the lowest bytes of all numbers, then the next: the higher ones are all alike."""
    return column.view(np.uint8).reshape(len(column), column.itemsize).T.tobytes()


def unpacked(data: bytes, vocabulary: int) -> Block:
    """The block whose bytes these are. Raises ZstdError, DecodeError or ValueError where they are damaged."""
    wide = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    told = msgspec.msgpack.decode(zstandard.decompress(data), type=list[bytes])
    kinds = (np.uint32, np.uint8, wide, np.uint8, wide, np.uint8, np.uint8)
    lengths, ranks, elsewhere, used, ids, steps, rest = (
        joined(column, kind) for column, kind in zip(told, kinds, strict=True)
    )
    first = begins(used)
    token_ids = tokens_of(ranks, elsewhere, first, ids)
    return Block(begins(lengths), token_ids, first, ids, levels_of(steps.view(np.uint8), first), rest.view(np.uint8))


def joined(column: bytes, kind: type[np.unsignedinteger[Any]]) -> Ints:
    """The numbers whose planes these are."""
    size = np.dtype(kind).itemsize
    return np.ascontiguousarray(np.frombuffer(column, np.uint8).reshape(size, -1).T).view(kind).reshape(-1)


def begins(lengths: Ints) -> Ints:
    """Where each of several runs begins, and the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def row_of(block: Block, row: int) -> TopK:
    """One row, padded to its widest place; what rounding moved is put right, so that all sums to 1."""
    tokens = slice(int(block.starts[row]), int(block.starts[row + 1]))
    first = block.first[tokens.start : tokens.stop + 1]
    used = np.diff(first)
    width = int(used.max(initial=1))
    kept = np.arange(width) < used[:, None]
    ids, logp = np.zeros(kept.shape, block.ids.dtype), np.full(kept.shape, -np.inf, np.float32)
    inside = slice(int(first[0]), int(first[-1]))
    ids[kept] = block.ids[inside]
    logp[kept] = LOGP[block.levels[inside]]
    level = block.rest[tokens]
    rest = np.where(level == LEVELS, -np.inf, LOGP[level]).astype(np.float32)
    total = np.log(np.exp(logp).sum(axis=1) + np.exp(rest))
    return TopK(block.token_ids[tokens], ids, logp - total[:, None], rest - total)
