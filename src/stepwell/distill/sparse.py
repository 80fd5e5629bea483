"""A teacher's probabilities of rows in files, by the rows' names: blocks (`sparse_block.py`) and a footer.

The footer holds the tokenizer's hash, so that a wrong tokenizer fails at once, and comes last, so that a file cut short
does, too. `kind` is "topk" (the likeliest tokens and the rest) or "sampled" (drawn tokens with their shares).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import zstandard
from msgspec import Struct

from stepwell.distill.sparse_block import ZSTD_LEVEL, Block, packed, row_of, unpacked
from stepwell.distill.topk import MOST_K
from stepwell.distill.topk import TopK as TopK  # noqa: PLC0414 - what these files hold
from stepwell.distill.topk import sampled as sampled  # noqa: PLC0414
from stepwell.distill.topk import top as top  # noqa: PLC0414
from stepwell.errors import DistillError

Kind: TypeAlias = Literal["topk", "sampled"]

MAGIC = b"stepwell sparse 2\n"
DIGEST_BYTES, SIZE_BYTES = 16, 8
BLOCK_ROWS, BLOCK_TOKENS = 512, 1 << 16
CACHE_BYTES = 256 << 20
"""Blocks kept unpacked by a reader: a set of some million tokens stays in memory, a larger one does not fill it."""


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
    sha256: str = ""
    """Of all blocks; empty in files that were written before it was kept."""


# --- writing


def write(
    path: Path, rows: Iterable[tuple[str, TopK]], *, tokenizer_hash: str, vocabulary: int, kind: Kind = "topk"
) -> Footer:
    """Write all rows by name, whole or not at all. Raises DistillError for ids outside the vocabulary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    blocks: list[tuple[int, int]] = []
    names: list[list[str]] = []
    num_tokens, total = 0, sha256()
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
            total.update(data)
        footer = Footer(tokenizer_hash, vocabulary, kind, num_tokens, blocks, names, total.hexdigest())
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


# --- reading


class SparseRows:
    """The rows of a file, or of all `*.sparse` files of a folder, by name."""

    def __init__(self, footers: list[Footer], places: dict[str, tuple[Path, int, int, int]], cache_bytes: int) -> None:
        self.vocabulary, self.kind = footers[0].vocabulary, footers[0].kind
        self.digest = sha256(msgspec.msgpack.encode(footers)).hexdigest()
        """Of what the files hold: another teacher's probabilities of the same texts have another one."""
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
        return SparseRows(footers, places, cache_bytes)

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
    try:
        with file.open("rb") as data:
            data.seek(offset)
            return unpacked(data.read(size), vocabulary)
    except (OSError, zstandard.ZstdError, msgspec.DecodeError, ValueError) as error:
        raise DistillError(f"is damaged at byte {offset} ({error}): write it anew", file=str(file)) from error
