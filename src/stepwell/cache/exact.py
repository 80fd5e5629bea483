"""The exact cache: complete answers by key, in memory in front of a store that lasts."""

from __future__ import annotations

import logging
from time import time

import msgspec
from msgspec import Struct

from stepwell.errors import StoreError
from stepwell.protocols import Store
from stepwell.store.memory import Memory
from stepwell.types import Answer, Form, Usage

log = logging.getLogger(__name__)


class Kept(Struct, frozen=True, array_like=True):
    """What a store holds of an answer; written with MessagePack."""

    form: Form
    body: bytes
    usage: Usage | None
    engine: str
    saved_usd: float


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Kept).decode


class Exact:
    """Answers by key. Nothing in here decides what may be kept: see `steps/cache.py`."""

    def __init__(self, memory: Memory[Answer], store: Store | None) -> None:
        self.memory, self.store = memory, store

    async def get(self, key: bytes) -> Answer | None:
        """The kept answer, or None. What only the store has moves up into memory."""
        answer = self.memory.get(key)
        if answer is not None or self.store is None:
            return answer
        try:
            found = await self.store.get(key)
        except StoreError as error:
            log.warning("%s: asked for anew", error)
            return None
        if found is None:
            return None
        answer = read(*found)
        if answer is not None:
            self.memory.put(key, answer, answer.expires_s, len(answer.body))
        return answer

    async def put(self, key: bytes, answer: Answer, ttl_s: float) -> None:
        """Keep a complete answer for `ttl_s` seconds."""
        expires_s = time() + ttl_s
        kept = msgspec.structs.replace(answer, expires_s=expires_s)
        self.memory.put(key, kept, expires_s, len(answer.body))
        if self.store is not None:
            value = encode(Kept(answer.form, answer.body, answer.usage, answer.engine, answer.saved_usd or 0.0))
            await self.store.put(key, value, expires_s)

    async def close(self) -> None:
        """Close the store."""
        if self.store is not None:
            await self.store.close()


def read(value: bytes, expires_s: float) -> Answer | None:
    """Turn a stored value back into an answer; one that cannot be read counts as a miss."""
    try:
        kept = decode(value)
    except msgspec.DecodeError as error:
        log.warning("a kept answer cannot be read (%s): asked for anew", error)
        return None
    return Answer(
        form=kept.form,
        body=kept.body,
        usage=kept.usage,
        engine=kept.engine,
        expires_s=expires_s,
        saved_usd=kept.saved_usd,
    )
