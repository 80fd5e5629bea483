"""`store: true`: complete answers are kept for who asked, whichever step gave them; /v1/chat/completions lists them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from time import time
from typing import Any

from stepwell.config_kept import Stored as Section
from stepwell.errors import BadRequest, StoreError
from stepwell.gateway import listing, openai, stored_rows
from stepwell.gateway.database import Database, Work
from stepwell.gateway.stored_row import made
from stepwell.gateway.surface import Asked, NotFound, Page, page, taken
from stepwell.types import Settled

log = logging.getLogger(__name__)

START = b"/v1/chat/completions"
MOST_WAITING_BYTES = 64 * 1024 * 1024
RETRY_S = 1.0
DEFAULT_LIMIT, MOST_LIMIT = 20, 100
OK = 200


class Stored:
    """A settler that keeps answers, and the surface that shows them."""

    def __init__(self, section: Section) -> None:
        self.section, self.flush_s = section, section.flush_ms / 1000
        self.database = Database(section.path, stored_rows.SCHEMA)
        self.waiting: list[tuple[Settled, float]] = []
        self.num_bytes = 0
        self.writing: asyncio.Task[None] | None = None
        self.closing = asyncio.Event()

    def settle(self, settled: Settled) -> None:
        """Note an answer whose caller wants it stored, for the next batch."""
        if settled.request.stored is None or not settled.complete or settled.status != OK:
            return
        size = len(settled.body) + len(settled.request.body)
        if not settled.body or self.num_bytes + size > MOST_WAITING_BYTES:
            log.error("request %s is not stored: too long, or too many wait for the disk", settled.request.id)
            return
        self.waiting.append((settled, time()))
        self.num_bytes += size
        if self.writing is None:
            self.writing = asyncio.get_running_loop().create_task(self.write_soon())

    async def write_soon(self) -> None:
        """Write what waits, and again while the disk refuses."""
        wait_s = self.flush_s
        while self.waiting:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.closing.wait(), wait_s)
            written = await self.write()
            wait_s = self.flush_s if written else RETRY_S
            if self.closing.is_set() and not written:
                break
        self.writing = None

    async def write(self) -> bool:
        """Write what waits now; where the disk refuses, it goes on waiting."""
        batch, self.waiting, self.num_bytes = self.waiting, [], 0
        try:
            await asyncio.to_thread(self.keep, batch)
        except StoreError as error:
            log.error("%d answers wait to be stored: %s", len(batch), error)  # noqa: TRY400 - it says all
            self.waiting = batch + self.waiting
            self.num_bytes += sum(len(each.body) + len(each.request.body) for each, _ in batch)
            return False
        return True

    def keep(self, batch: list[tuple[Settled, float]]) -> None:
        """In a thread: make the rows and insert them."""
        rows = [row for settled, at_s in batch if (row := made(settled, at_s)) is not None]
        keep_s, limit_bytes = self.section.keep_days * 86_400, self.section.file_bytes
        self.database.do(lambda database: stored_rows.insert(database, rows, keep_s=keep_s, limit_bytes=limit_bytes))

    async def close(self) -> None:
        """Write what waits, and close the file."""
        self.closing.set()
        if self.writing is not None:
            await self.writing
        if self.waiting:
            log.error("%d answers that were to be stored are lost", len(self.waiting))
        self.database.shut()

    # --- the surface

    async def show(self, asked: Asked) -> Page:
        """GET /v1/chat/completions, …/ID (also POST, DELETE), …/ID/messages. Raises AdmitError and StoreError."""
        if self.waiting:
            await self.write()
        match asked.parts:
            case ():
                ways = {"GET": self.listed, "POST": self.listed}  # a POST is answered before: that is generation
            case (name,):
                ways = {"GET": partial(self.shown, name), "POST": partial(self.change, name)}
                ways["DELETE"] = partial(self.delete, name)
            case (name, "messages"):
                ways = {"GET": partial(self.messages, name)}
            case _:
                raise NotFound(f"nothing is at {'/'.join(asked.parts)!r} here")
        return await taken(ways, asked)

    async def listed(self, asked: Asked) -> Page:
        """Stored answers that match."""
        wanted = listing.window(asked.query, limit=DEFAULT_LIMIT, most=MOST_LIMIT, ascending=True)
        model, pairs = asked.query.get("model", ""), listing.metadata(asked.query)
        found = await self.database.run(lambda database: stored_rows.page(database, asked.tenant, wanted, model, pairs))
        if found is None:
            raise BadRequest(f"no stored answer is called {wanted.after!r}", param="after")
        return page(listing.listed(found, wanted))

    async def found(self, asked: Asked, name: str) -> dict[str, Any]:
        """One answer; another process may be about to write it. Raises NotFound."""
        tenant = asked.tenant
        work: Work[dict[str, Any] | None] = lambda database: stored_rows.one(database, tenant, name)  # noqa: E731
        told = await self.database.run(work)
        if told is None:
            await asyncio.sleep(2 * self.flush_s)
            told = await self.database.run(work)
        if told is None:
            raise missing(name)
        return told

    async def shown(self, name: str, asked: Asked) -> Page:
        """One answer."""
        return page(await self.found(asked, name))

    async def change(self, name: str, asked: Asked) -> Page:
        """Other metadata."""
        pairs = openai.metadata_of(openai.decoded(asked.body))
        tenant = asked.tenant
        if not await self.database.run(lambda database: stored_rows.change(database, tenant, name, pairs)):
            raise missing(name)
        return page(await self.found(asked, name))

    async def delete(self, name: str, asked: Asked) -> Page:
        """Forget an answer."""
        if not await self.database.run(lambda database: stored_rows.delete(database, asked.tenant, name)):
            raise missing(name)
        return page({"object": "chat.completion.deleted", "id": name, "deleted": True})

    async def messages(self, name: str, asked: Asked) -> Page:
        """What was asked, in order."""
        wanted = listing.window(asked.query, limit=DEFAULT_LIMIT, most=MOST_LIMIT, ascending=True)
        told = await self.database.run(lambda database: stored_rows.messages(database, asked.tenant, name))
        if told is None:
            raise missing(name)
        told = told if wanted.ascending else told[::-1]
        if wanted.after:
            at = next((at for at, each in enumerate(told, 1) if each["id"] == wanted.after), 0)
            if not at:
                raise BadRequest(f"no message is called {wanted.after!r}", param="after")
            told = told[at:]
        return page(listing.listed(told, wanted))


def missing(name: str) -> NotFound:
    """Say that a tenant has no such answer."""
    return NotFound(f"no stored answer is called {name!r}; it is stored where it was asked for with `store: true`")
