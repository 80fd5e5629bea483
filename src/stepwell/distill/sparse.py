"""What a teacher thinks of every place of a text, small: the likeliest tokens and one bucket for the rest.

A file is blocks of rows and a footer. In a block every column stands by itself, split into planes of bytes, and is
compressed (zstd) with a checksum. A log-probability l is one byte, round(255 * sqrt(-l / 20)): exact near 0, where the
mass is, and coarse where there is none. The footer holds the tokenizer's hash, so that a wrong tokenizer fails at
once, and it comes last, so that a file cut short does, too.

`kind` is "topk" (biased without its rest, hence the bucket) or "sampled" (ids drawn from the teacher with their
shares: unbiased; Anshumann et al., Sparse Logit Sampling, arXiv 2503.16870).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import zstandard
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.errors import DistillError

Kind: TypeAlias = Literal["topk", "sampled"]
Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.integer[Any]]

MAGIC = b"stepwell sparse 2\n"
DIGEST_BYTES, SIZE_BYTES = 16, 8
BLOCK_ROWS, BLOCK_TOKENS = 512, 1 << 16
LEVELS, LOWEST = 255, -20.0
MOST_K = 254
ELSEWHERE = 255
ZSTD_LEVEL = 19
CACHE_BYTES = 256 << 20
"""Blocks kept unpacked by a reader: a set of some million tokens stays in memory, a larger one does not fill it."""


class TopK(Struct, frozen=True, eq=False):
    """A text's tokens [T] and, for each place, what the teacher expected there in front of it, likeliest first.

    `ids` and `logp` are [T, k]; places that need fewer than k are padded with id 0 and logp -inf: mask them.
    `rest_logp` [T] is the log-probability of all other tokens together (-inf: none, as always where sampled).
    """

    token_ids: Ints
    ids: Ints
    logp: Floats
    rest_logp: Floats


class Footer(Struct, frozen=True):
    """What a file holds, and for which tokenizer."""

    tokenizer_hash: str
    vocabulary: int
    kind: Kind
    num_tokens: int
    blocks: list[tuple[int, int]]
    """Offset and size in bytes of each."""
    ids: list[list[str]]
    """The rows of each block."""


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


# --- from a teacher's probabilities


def top(token_ids: Ints, logp: Floats, *, cover: float = 0.99, most: int = 16, least: float = 0.0) -> TopK:
    """The fewest tokens of each place that hold `cover` of its mass, at most `most`; `logp` is [T, vocabulary].

    Tokens less likely than `least` are left to the rest, too: what label smoothing spreads over all of them is told by
    one number as well as by many.
    """
    most = min(most, logp.shape[1], MOST_K)
    ids = np.argpartition(-logp, most - 1, axis=1)[:, :most] if most < logp.shape[1] else np.argsort(-logp, axis=1)
    return fewest(token_ids, ids, np.take_along_axis(logp, ids, axis=1), cover=cover, least=least)


def fewest(token_ids: Ints, ids: Ints, logp: Floats, *, cover: float, least: float = 0.0) -> TopK:
    """Of the tokens that are known, [T, k], the fewest that hold `cover` of a place's mass; -inf is none."""
    order = np.argsort(-logp, axis=1, kind="stable")
    ids, kept = np.take_along_axis(ids, order, axis=1), np.take_along_axis(logp, order, axis=1)
    mass = np.cumsum(np.exp(kept, dtype=np.float64), axis=1)
    wanted = (mass[:, :-1] < cover) & (kept[:, 1:] >= np.log(max(least, 1e-30)))
    used = np.concatenate([np.ones((len(kept), 1), bool), wanted], axis=1) & np.isfinite(kept)
    with np.errstate(divide="ignore"):
        rest = np.log(np.maximum(0.0, 1.0 - np.where(used, np.exp(kept, dtype=np.float64), 0.0).sum(axis=1)))
    width = int(used.sum(axis=1).max(initial=1))
    kept = np.where(used, kept, -np.inf).astype(np.float32)[:, :width]
    return TopK(np.asarray(token_ids), np.where(used, ids, 0)[:, :width], kept, rest.astype(np.float32))


def sampled(token_ids: Ints, logp: Floats, *, num: int, seed: int) -> TopK:
    """`num` ids drawn for each place with their shares: in expectation the teacher's whole distribution."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(np.exp(logp, dtype=np.float64), axis=1)
    drawn = rng.random((len(logp), num)) * edges[:, -1:]
    found = [np.unique(np.searchsorted(*each, side="right"), return_counts=True) for each in zip(edges, drawn)]  # noqa: B905
    width = max((len(ids) for ids, _ in found), default=1)
    ids, shares = np.zeros((len(found), width), np.int64), np.full((len(found), width), -np.inf, np.float32)
    for place, (each, counts) in enumerate(found):
        order = np.argsort(-counts, kind="stable")
        ids[place, : len(each)] = each[order]
        shares[place, : len(each)] = np.log(counts[order] / num)
    return TopK(np.asarray(token_ids), ids, shares, np.full(len(found), -np.inf, np.float32))


# --- one byte for a log-probability


def level_of(logp: Floats) -> NDArray[np.uint8]:
    """The nearest level; -inf is the lowest."""
    depth = np.clip(-logp.astype(np.float64), 0.0, -LOWEST)
    return np.asarray(np.rint(LEVELS * np.sqrt(depth / -LOWEST)), np.uint8)


LOGP = (LOWEST * (np.arange(LEVELS + 1) / LEVELS) ** 2).astype(np.float32)
"""The log-probability of each level."""


# --- writing


def write(
    path: Path, rows: Iterable[tuple[str, TopK]], *, tokenizer_hash: str, vocabulary: int, kind: Kind = "topk"
) -> Footer:
    """Write all rows by name, whole or not at all. Raises DistillError for ids outside the vocabulary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    blocks: list[tuple[int, int]] = []
    names: list[list[str]] = []
    num_tokens = 0
    with part.open("wb") as out:
        out.write(MAGIC)
        for chunk in chunks(rows):
            for name, row in chunk:
                check(name, row, vocabulary)
            data = packed([row for _, row in chunk], vocabulary)
            blocks.append((out.tell(), len(data)))
            names.append([name for name, _ in chunk])
            num_tokens += sum(len(row.token_ids) for _, row in chunk)
            out.write(data)
        footer = Footer(tokenizer_hash, vocabulary, kind, num_tokens, blocks, names)
        data = zstandard.compress(msgspec.msgpack.encode(footer), ZSTD_LEVEL)
        out.write(data + sha256(data).digest()[:DIGEST_BYTES] + len(data).to_bytes(SIZE_BYTES, "little") + MAGIC)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
    return footer


def chunks(rows: Iterable[tuple[str, TopK]]) -> Iterator[list[tuple[str, TopK]]]:
    """Rows in blocks."""
    chunk: list[tuple[str, TopK]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row[1].token_ids)
        if len(chunk) == BLOCK_ROWS or size >= BLOCK_TOKENS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def check(name: str, row: TopK, vocabulary: int) -> None:
    """Raise DistillError where a row cannot be right."""
    shape = (len(row.token_ids), row.ids.shape[-1])
    if row.ids.shape != shape or row.logp.shape != shape or row.rest_logp.shape != shape[:1] or shape[1] > MOST_K:
        raise DistillError(f"the row {name!r} has shapes that do not fit together: {row.ids.shape}, {row.logp.shape}")
    for ids in (row.ids, row.token_ids):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
            raise DistillError(f"the row {name!r} has tokens outside a vocabulary of {vocabulary}; check the tokenizer")


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


# --- reading


class SparseRows:
    """The rows of a file, or of all `*.sparse` files of a folder, by name."""

    def __init__(self, footer: Footer, places: dict[str, tuple[Path, int, int, int]], cache_bytes: int) -> None:
        self.vocabulary, self.kind = footer.vocabulary, footer.kind
        self.places = places
        """File, offset, size, and the row within that block."""
        self.blocks: OrderedDict[tuple[Path, int], Block] = OrderedDict()
        self.num_bytes, self.most_bytes = 0, cache_bytes

    @staticmethod
    def open(path: Path, tokenizer_hash: str, *, cache_bytes: int = CACHE_BYTES) -> SparseRows:
        """Raises DistillError for another tokenizer, a file cut short, or none at all."""
        files = sorted(path.glob("*.sparse")) if path.is_dir() else [path]
        if not files:
            raise DistillError("holds no *.sparse file: run the teacher first", file=str(path))
        places: dict[str, tuple[Path, int, int, int]] = {}
        footers = [footer_of(file) for file in files]
        for file, footer in zip(files, footers, strict=True):
            if footer.tokenizer_hash != tokenizer_hash:
                told = f"was written with the tokenizer {footer.tokenizer_hash[:12]}, this is {tokenizer_hash[:12]}"
                raise DistillError(f"{told}: use the teacher's tokenizer, or its texts alone", file=str(file))
            if (footer.vocabulary, footer.kind) != (footers[0].vocabulary, footers[0].kind):
                raise DistillError("is of another kind than the files beside it; keep them apart", file=str(file))
            for (offset, size), names in zip(footer.blocks, footer.ids, strict=True):
                places.update((name, (file, offset, size, row)) for row, name in enumerate(names))
        return SparseRows(footers[0], places, cache_bytes)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def get(self, name: str) -> TopK | None:
        """A row, or None where there is none. Raises DistillError where its block is damaged."""
        if name not in self.places:
            return None
        file, offset, size, row = self.places[name]
        return row_of(self.block(file, offset, size), row)

    def block(self, file: Path, offset: int, size: int) -> Block:
        """A block, from memory where it was read lately."""
        key = (file, offset)
        if key in self.blocks:
            self.blocks.move_to_end(key)
            return self.blocks[key]
        block = read_block(file, offset, size, self.vocabulary)
        self.blocks[key] = block
        self.num_bytes += block.num_bytes
        while self.num_bytes > self.most_bytes and len(self.blocks) > 1:
            self.num_bytes -= self.blocks.popitem(last=False)[1].num_bytes
        return block


def footer_of(file: Path) -> Footer:
    """What a file says of itself. Raises DistillError where it is cut short, damaged or something else."""
    tail = DIGEST_BYTES + SIZE_BYTES + len(MAGIC)
    try:
        with file.open("rb") as data:
            if data.read(len(MAGIC)) != MAGIC:
                raise DistillError("is no file of sparse logits", file=str(file))
            end = data.seek(0, os.SEEK_END)
            data.seek(max(0, end - tail))
            told = data.read()
            size = int.from_bytes(told[DIGEST_BYTES : DIGEST_BYTES + SIZE_BYTES], "little")
            if not told.endswith(MAGIC) or not 0 < size <= end - tail:
                raise DistillError("is cut short: write it anew", file=str(file))
            data.seek(end - tail - size)
            body = data.read(size)
    except OSError as error:
        raise DistillError(f"cannot be read ({error.strerror})", file=str(file)) from error
    if sha256(body).digest()[:DIGEST_BYTES] != told[:DIGEST_BYTES]:
        raise DistillError("has a damaged footer: write it anew", file=str(file))
    return msgspec.msgpack.decode(zstandard.decompress(body), type=Footer)


def read_block(file: Path, offset: int, size: int, vocabulary: int) -> Block:
    """One block, unpacked. Raises DistillError where it is damaged."""
    wide = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    try:
        with file.open("rb") as data:
            data.seek(offset)
            told = msgspec.msgpack.decode(zstandard.decompress(data.read(size)), type=list[bytes])
        kinds = (np.uint32, np.uint8, wide, np.uint8, wide, np.uint8, np.uint8)
        lengths, ranks, elsewhere, used, ids, steps, rest = (
            joined(column, kind) for column, kind in zip(told, kinds, strict=True)
        )
    except (OSError, zstandard.ZstdError, msgspec.DecodeError, ValueError) as error:
        raise DistillError(f"is damaged at byte {offset} ({error}): write it anew", file=str(file)) from error
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
