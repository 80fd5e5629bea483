"""The exact cache: answers by the digest of their question, in memory in front of a store that others may share.

Memory answers without waiting. Nothing in here decides what may be kept or served: see `steps/cache.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from time import monotonic
from typing import Any, TypeVar

import msgspec

from stepwell.cache.fresh import Terms, early_s
from stepwell.cache.rows import AnswerRow, KeyRow, encode, name_of
from stepwell.cache.tags import BLIND, Tags, tag_of
from stepwell.drive import Baton, Drive
from stepwell.errors import StoreError
from stepwell.protocols import Store
from stepwell.store.memory import Memory
from stepwell.types import Answer, Evidence, Proposal

log = logging.getLogger(__name__)

REST_S = 1.0
"""A store that failed is not asked for so long: a miss must not wait for it every time."""
HELD_BYTES = 800
"""What an answer in memory costs beside its body."""

Row = TypeVar("Row", KeyRow, AnswerRow)
Read = TypeVar("Read")
key_rows: msgspec.msgpack.Decoder[KeyRow] = msgspec.msgpack.Decoder(KeyRow)
answer_rows: msgspec.msgpack.Decoder[AnswerRow] = msgspec.msgpack.Decoder(AnswerRow)


class Held:
    """An answer at hand, with the proposal that most callers get."""

    __slots__ = ("alive_at", "name", "proposal", "quiet_s", "refresh_s", "row", "scope")

    def __init__(self, name: bytes, row: AnswerRow, scope: bytes, terms: Terms) -> None:
        """`scope`: whose question led here."""
        self.name, self.row, self.scope = name, row, scope
        self.proposal = Proposal(answer_of(row), Evidence("exact", "hit"))
        self.quiet_s = early_s(row.made_s, row.stale_s, row.seconds, terms.early)
        """Until then it is surely fresh, and no refresh is due."""
        self.refresh_s = 0.0
        """No refresh is begun before."""
        self.alive_at = BLIND - 1
        """The version of the tags at which it was last found alive."""


class Exact:
    """Answers by exact digest, and by their own names."""

    def __init__(self, memory: Memory[Held], store: Store | None, tags: Tags) -> None:
        self.memory, self.store, self.tags = memory, store, tags
        self.rests_until_s = 0.0
        self.num_writing = 0
        self.written: Baton | None = None

    # --- memory

    def recall(self, exact: bytes, scope: bytes) -> Held | None:
        """What memory has, in microseconds; an answer that was invalidated is forgotten."""
        held = self.memory.get(exact)
        if held is None or held.scope != scope:
            return None
        if held.alive_at != self.tags.version and not self.living(exact, held):
            return None
        return held

    def living(self, exact: bytes, held: Held) -> bool:
        """Compare its tags with the events since."""
        version = self.tags.version
        if version == BLIND:
            return False
        if self.tags.dead((*held.row.tags, tag_of(held.name)), held.row.position):
            self.memory.drop(exact)
            return False
        held.alive_at = version
        return True

    # --- the store

    async def find(self, exact: bytes, scope: bytes, partition: bytes, terms: Terms) -> Held | None:
        """What the store has; it moves up into memory. Raises StoreError."""
        if self.store is None:
            return None
        await self.ready()
        found = await self.asked(self.store.get(b"k" + exact))
        key = None if found is None else read(found[0], key_rows)
        if key is None or key.partition != partition:
            return None
        row, expires_s = await self.named(key.answer, partition)
        if row is None:
            return None
        held = Held(key.answer, row, scope, terms)
        if not self.living(exact, held):
            return None
        self.remember(exact, held, expires_s)
        return held

    def remember(self, exact: bytes, held: Held, expires_s: float, by: bytes = b"") -> None:
        """Hold an answer in memory; `by`: who had it made, where that is known."""
        row = held.row
        num_bytes = HELD_BYTES + len(row.body)
        self.memory.put(exact, held, expires_s, num_bytes, usd=row.saved_usd, principal=by, partition=held.scope)

    async def named(self, answer: bytes, partition: bytes) -> tuple[AnswerRow | None, float]:
        """An answer by its name, of this partition only, and its expiry; nothing that was killed. Raises StoreError."""
        if self.store is None:
            return None, 0.0
        await self.ready()
        found = await self.asked(self.store.get(b"a" + answer))
        row = None if found is None else read(found[0], answer_rows)
        if found is None or row is None or row.partition != partition:
            return None, 0.0
        if self.tags.version == BLIND:
            raise StoreError("what was invalidated is not known at the moment")
        if self.tags.dead((*row.tags, tag_of(answer)), row.position):
            return None, 0.0
        return row, found[1]

    async def ready(self) -> None:
        """Know what was invalidated before anything is read. Raises StoreError."""
        if not self.tags.replayed:
            await self.asked(self.tags.ready())

    async def asked(self, asking: Coroutine[Any, Any, Read]) -> Read:
        """Ask the store, unless it has just failed. Raises StoreError."""
        if monotonic() < self.rests_until_s:
            asking.close()
            raise StoreError("the store has just failed, and is left alone for a moment")
        try:
            return await asking
        except StoreError as error:
            if self.rests_until_s <= monotonic() - REST_S:
                log.warning("the cache's store does not answer: %s", error)
            self.rests_until_s = monotonic() + REST_S
            raise

    # --- keeping

    def keep(self, exact: bytes, scope: bytes, row: AnswerRow, terms: Terms, fence: int, *, by: bytes = b"") -> Held:
        """Keep an answer: in memory now, in the store as soon as it can be; with `fence` its lease ends."""
        held, expires_s = Held(name_of(row), row, scope, terms), terms.expires_s(row.stale_s)
        self.remember(exact, held, expires_s, by)
        if self.store is not None:
            self.soon(self.written_down(self.store, exact, held, expires_s, fence))
        return held

    async def written_down(self, store: Store, exact: bytes, held: Held, expires_s: float, fence: int) -> None:
        """Write the answer, then the key that leads to it."""
        await store.put(b"a" + held.name, encode(held.row), expires_s)
        key = encode(KeyRow(held.name, held.row.partition))
        self.soon(store.put(b"k" + exact, key, expires_s, fence))
        if fence:
            self.soon(store.release(b"k" + exact, fence))  # right behind it, and in the same batch

    async def lease(self, exact: bytes, ttl_s: float) -> int | None:
        """Be the only process that asks a question: a fence, or None where another one is. Raises StoreError."""
        return None if self.store is None else await self.asked(self.store.lease(b"k" + exact, ttl_s))

    def give_up(self, exact: bytes, fence: int) -> None:
        """End a lease without an answer: another process may ask at once."""
        if self.store is not None:
            self.soon(self.store.release(b"k" + exact, fence))

    def soon(self, writing: Coroutine[Any, Any, None]) -> None:
        """Write without anybody waiting; what the store refuses, memory still has."""
        Drive(self.counted(writing), asyncio.get_running_loop())

    async def counted(self, writing: Coroutine[Any, Any, None]) -> None:
        """One write, noted so that `close` waits for it."""
        self.num_writing += 1
        try:
            await self.asked(writing)
        except StoreError as error:
            log.debug("not written: %s", error)
        finally:
            self.num_writing -= 1
            if self.num_writing == 0 and self.written is not None:
                self.written.pass_on()

    async def close(self) -> None:
        """Finish what is being written, and close the store."""
        await self.tags.close()
        if self.num_writing:
            self.written = Baton(asyncio.get_running_loop())
            await self.written
        if self.store is not None:
            await self.store.close()


def answer_of(row: AnswerRow) -> Answer:
    """A row as an answer."""
    return Answer(
        form=row.form,
        body=row.body,
        usage=row.usage,
        engine=row.engine,
        expires_s=row.stale_s,
        saved_usd=row.saved_usd,
        made_s=row.made_s,
    )


def read(value: bytes, rows: msgspec.msgpack.Decoder[Row]) -> Row | None:
    """Turn a stored value back into a row; one that cannot be read counts as a miss."""
    try:
        return rows.decode(value)
    except msgspec.DecodeError as error:
        log.warning("a kept row cannot be read (%s): asked for anew", error)
        return None
