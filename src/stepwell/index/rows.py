"""What stands in the log of keys: every wording that leads to an answer, replayed into each process's index."""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Struct

KEYS = b"keys"
"""The log."""


class KeyAdded(Struct, frozen=True, array_like=True, gc=False):
    """A row of the log `keys`: a wording that leads to an answer."""

    exact: bytes
    partition: bytes
    answer: bytes
    text: str
    vector: bytes
    """int8, a direction: `vectors.packed` of what the embedder gave."""
    embedder: str
    """See `tag_of`."""
    principal: bytes
    """Who contributed it: a keyed hash, for quotas and quorums."""
    expires_s: float


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(KeyAdded).decode


def tag_of(embedder: str) -> str:
    """Eight digits that stand for an embedder's name in every key: vectors of two are never compared."""
    return sha256(embedder.encode()).hexdigest()[:8]
