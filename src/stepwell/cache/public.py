"""Answers for everybody: when a private one becomes public, and where a public one is found.

On a route with `share = "public"` an answer belongs to who asked until `quorum` distinct principals have asked exactly
the same and nothing personal was found in question or answer (k-anonymity; Sweeney, 2002). Only then is it copied into
the route's public partition. What a request says never changes its scope.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping
from hashlib import sha256
from time import time
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.cache.exact import Exact
from stepwell.cache.fresh import Terms
from stepwell.cache.rows import AnswerRow, KeyRow, encode
from stepwell.cache.tags import tag_of
from stepwell.engines.replay import in_form
from stepwell.engines.texts import answered_text
from stepwell.facts.personal import personal
from stepwell.protocols import Store
from stepwell.types import Caller, Kind

log = logging.getLogger(__name__)

MOST_BYTES = 32 * 1024
"""Of question and answer: longer ones are not looked through, and stay private."""
LEASE_S = 2.0
TRIES, PAUSE_S = 10, 0.05


class Asked(Struct, frozen=True, gc=False):
    """A question on a public route, as everybody would have asked it."""

    kind: Kind
    canonical: bytes
    partition: bytes
    """Of the route: its public scope (`key.scope`), known to all."""
    exact: bytes
    """The digest in this partition (`key.key`), which anybody can compute: docs/digest.md."""


class Ballot(Struct, frozen=True, array_like=True, gc=False):
    """Under `b"b" + exact digest`: who has asked, at most as many as the quorum."""

    voters: tuple[bytes, ...]


class Found(Struct, frozen=True, gc=False):
    """A public answer, as JSON."""

    body: bytes
    tags: tuple[str, ...]
    made_s: float
    stale_s: float


ballots = msgspec.msgpack.Decoder(Ballot)
key_rows = msgspec.msgpack.Decoder(KeyRow)


def voter(secret: bytes, caller: Caller) -> bytes:
    """Who asks, as a keyed hash."""
    who = msgspec.json.encode((caller.tenant, caller.principal))
    return hmac.digest(secret, b"voter\0" + who, "sha256")[:16]


async def offer(exact: Exact, asked: Asked, who: bytes, row: AnswerRow, *, terms: Terms, quorum: int) -> str:
    """Count a vote for a question whose whole, good answer `row` was just kept; make it public if it may be.

    Returns why it is not, or nothing. Call it as `exact.soon(...)` does: nobody waits. Raises StoreError.
    """
    if exact.store is None:
        return "nothing lasts without a store"
    expires_s = terms.expires_s(row.stale_s)
    if not await voted(exact.store, asked.exact, who, quorum, expires_s):
        return f"fewer than {quorum} principals asked"
    why_not = unfit(asked, row)
    if why_not:
        log.info("an answer stays private: %s", why_not)
        return why_not
    body = in_form(row.body, row.form, "json", asked.kind, include_usage=True)
    public = msgspec.structs.replace(row, partition=asked.partition, form="json", body=body)
    held = exact.keep(asked.exact, asked.partition, public, terms, fence=0)
    await exact.store.put(b"p" + sha256(body).digest(), encode(KeyRow(held.name, asked.partition)), expires_s)
    return ""


async def voted(store: Store, exact: bytes, who: bytes, quorum: int, expires_s: float) -> bool:
    """Note that somebody asked; say whether enough have. Raises StoreError."""
    key = b"b" + exact
    before = await voters(store, key)
    if who in before or len(before) >= quorum:
        return len(before) >= quorum
    for _ in range(TRIES):
        fence = await store.lease(key, LEASE_S)
        if fence is not None:
            try:
                now = (*(each for each in await voters(store, key) if each != who), who)
                await store.put(key, encode(Ballot(now[:quorum])), expires_s, fence)
            finally:
                await store.release(key, fence)
            return len(now) >= quorum
        await asyncio.sleep(PAUSE_S)
    return False


async def voters(store: Store, key: bytes) -> tuple[bytes, ...]:
    """Who has asked so far."""
    found = await store.get(key)
    try:
        return ballots.decode(found[0]).voters if found else ()
    except msgspec.DecodeError:
        return ()


def unfit(asked: Asked, row: AnswerRow) -> str:
    """Why an answer must not be everybody's; empty where nothing speaks against it."""
    if len(asked.canonical) + len(row.body) > MOST_BYTES:
        return "too long to look through"
    said = answered_text(row.body, row.form, asked.kind)
    if said is None:
        return "it is more than one text"
    texts = list(strings(msgspec.json.decode(asked.canonical)))
    return next((f"{found} in the question" for found in map(personal, texts) if found), "") or (
        f"{found} in the answer" if (found := personal(said)) else ""
    )


def strings(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Every text and number in a question, its names of members too."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


async def by_question(exact: Exact, partition: bytes, digest: bytes, terms: Mapping[bytes, Terms]) -> Found | None:
    """The public answer to a question while it is fresh; `terms` by public partition. Raises StoreError."""
    if partition not in terms:
        return None
    held = exact.recall(digest, partition) or await exact.find(digest, partition, partition, terms[partition])
    return found_of(held.name, held.row) if held is not None and held.row.stale_s > time() else None


async def by_hash(exact: Exact, partitions: frozenset[bytes], body_sha256: bytes) -> Found | str:
    """The public answer whose JSON has this hash; else why not: "missing", or "gone" once invalidated.

    Raises StoreError.
    """
    if exact.store is None:
        return "missing"
    stored = await exact.asked(exact.store.get(b"p" + body_sha256))
    try:
        key = key_rows.decode(stored[0]) if stored else None
    except msgspec.DecodeError:
        key = None
    if key is None or key.partition not in partitions:
        return "missing"
    row, _ = await exact.named(key.answer, key.partition)
    return "gone" if row is None else found_of(key.answer, row)


def found_of(name: bytes, row: AnswerRow) -> Found:
    """What everybody may see of a row; its own name is a tag, too, so that a CDN can drop it alone."""
    return Found(row.body, (*row.tags, tag_of(name)), row.made_s, row.stale_s)
