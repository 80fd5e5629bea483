"""What the cache writes into a store: one answer under its own name, many keys that lead to it, and three logs.

Written with MessagePack; the first byte of a key says what lies under it. A field is only ever added at the end.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Struct

from stepwell.types import Form, Usage

EVENTS, LABELS = b"events", b"labels"
"""Logs: `Event` (what was invalidated), `types.Label` (what audits found). The third, of keys, is the index's."""


class KeyRow(Struct, frozen=True, array_like=True, gc=False):
    """Under `b"k" + exact digest`: which answer a question has."""

    answer: bytes
    """The answer's name: see `name_of`."""
    partition: bytes
    """Checked again at every read: a row of another partition is no hit."""


class AnswerRow(Struct, frozen=True, array_like=True, gc=False):
    """Under `b"a" + answer`: one kept answer."""

    partition: bytes
    form: Form
    body: bytes
    usage: Usage | None
    engine: str
    saved_usd: float
    made_s: float
    stale_s: float
    """From here on it is stale; it may still be served while it is asked for anew, or when that fails."""
    tags: tuple[str, ...] = ()
    """What it depends on: an event behind `position` that names one of them invalidates it."""
    position: int = 0
    """The last event that was known when its making began."""
    seconds: float = 0.0
    """What making it took: a dear answer is made anew before it is stale."""


class Event(Struct, frozen=True, array_like=True, gc=False):
    """A row of the log `events`: a tag invalidated, or (`b"a"` + name) one answer killed with all its keys."""

    tag: str
    at_s: float
    answer: bytes = b""
    reason: str = ""


encode = msgspec.msgpack.Encoder().encode


def name_of(row: AnswerRow) -> bytes:
    """SHA-256 over partition, tags, position and body: what may be invalidated apart has names apart."""
    about = encode((row.partition, sorted(row.tags), row.position, len(row.body)))
    return sha256(about + row.body).digest()
