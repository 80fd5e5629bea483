"""A bundle in the forms that are published: plain, `.br`, `.zst`, `.gz`, and what has changed since the last one.

The delta `t/<new>.from-<old>.zst` is one Zstandard frame whose dictionary is the old bundle, raw. A server that speaks
Compression Dictionary Transport (RFC 9842) answers `Content-Encoding: dcz` with `dcz(old, delta)`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from hashlib import sha256

import brotli
import zstandard
from msgspec import Struct

from stepwell.errors import TemplateError
from stepwell.templates.manifest import HASH_CHARS, bundle_of

BROTLI_QUALITY, ZSTD_LEVEL, GZIP_LEVEL = 11, 19, 9
DCZ_MAGIC = bytes.fromhex("5e2a4d1820000000")
"""RFC 9842, section 5: a skippable frame of 32 bytes, the SHA-256 of the dictionary."""
MAX_BUNDLE_BYTES = 16 * 1024 * 1024
FOREVER = {"Content-Type": "application/json", "Cache-Control": "public, max-age=31536000, immutable"}


class Piece(Struct, frozen=True):
    """One object to put."""

    key: str
    data: bytes
    headers: dict[str, str]


def pieces(data: bytes, before: bytes | None = None) -> Iterator[Piece]:
    """The objects of a bundle: the plain one last, so that where it is, the others are."""
    path = bundle_of(data).path
    if before is not None and before != data:
        headers = {**FOREVER, "Content-Type": "application/zstd"}
        yield Piece(delta_key(data, before), delta(data, before), headers)
    yield Piece(f"{path}.br", brotli.compress(data, quality=BROTLI_QUALITY), {**FOREVER, "Content-Encoding": "br"})
    zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)
    yield Piece(f"{path}.zst", zstd, {**FOREVER, "Content-Encoding": "zstd"})
    yield Piece(f"{path}.gz", gzip.compress(data, GZIP_LEVEL, mtime=0), {**FOREVER, "Content-Encoding": "gzip"})
    yield Piece(path, data, FOREVER)


def delta_key(data: bytes, before: bytes) -> str:
    """The key of what changed between two bundles."""
    old = sha256(before).hexdigest()[:HASH_CHARS]
    return f"{bundle_of(data).path.removesuffix('.json')}.from-{old}.zst"


def delta(data: bytes, before: bytes) -> bytes:
    """A Zstandard frame that needs the old bundle to be read."""
    dictionary = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, dict_data=dictionary).compress(data)


def dcz(before: bytes, changes: bytes) -> bytes:
    """A delta as `Content-Encoding: dcz` sends it: 40 bytes more."""
    return DCZ_MAGIC + sha256(before).digest() + changes


def whole(key: str, data: bytes, before: bytes | None = None) -> bytes:
    """The bundle that a published object stands for. Raises TemplateError where it cannot be read."""
    try:
        if key.endswith(".br"):
            return bytes(brotli.decompress(data))
        if key.endswith(".gz"):
            return gzip.decompress(data)
        if key.endswith(".zst"):
            return unzstd(data, before if ".from-" in key else None)
    except (brotli.error, zstandard.ZstdError, zlib.error, OSError, EOFError) as error:
        raise TemplateError(f"cannot be unpacked: {error}", file=key) from error
    return data


def unzstd(data: bytes, before: bytes | None) -> bytes:
    """Read one Zstandard frame, with the old bundle as dictionary where it needs one. Raises ZstdError."""
    raw = zstandard.DICT_TYPE_RAWCONTENT
    dictionary = None if before is None else zstandard.ZstdCompressionDict(before, dict_type=raw)
    return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(data, max_output_size=MAX_BUNDLE_BYTES)
