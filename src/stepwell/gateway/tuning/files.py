"""/v1/files: training files are uploaded, checked line by line, listed, read and deleted, each tenant's apart."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from secrets import token_hex
from sqlite3 import Connection
from time import time
from typing import BinaryIO

import msgspec
from msgspec import Struct

from stepwell.config_kept import FineTuning
from stepwell.errors import AdmitError, BadRequest, StoreError, TooLarge
from stepwell.gateway import admit, listing, private
from stepwell.gateway.database import Database
from stepwell.gateway.exchange import Exchange
from stepwell.gateway.spool import Room, Spool
from stepwell.gateway.surface import BYTES, Asked, NotFound, Page, page, taken
from stepwell.gateway.tuning import file_rows
from stepwell.gateway.tuning.examples import summary
from stepwell.gateway.tuning.file_rows import File
from stepwell.gateway.tuning.multipart import Part, parts
from stepwell.types import Caller

START = b"/v1/files"
PURPOSE, RESULTS = "fine-tune", "fine-tune-results"
MOST_NAME_LETTERS = 255
MOST_FORM_BYTES = 64 * 1024
"""What a form may have beside its file."""
LEAST_LIFE_S, MOST_LIFE_S = 3600, 2_592_000
DEFAULT_LIMIT = MOST_LIMIT = 10_000
COPY_BYTES = 1024 * 1024
PART = ".part"


class Denied(AdmitError):  # noqa: N818 - a word like its siblings in errors.py
    """The key is known, and may not do this."""

    status = 403
    code = "not_allowed"


class Upload(Struct, frozen=True):
    """A form, taken apart."""

    file: Part
    purpose: str
    life_s: int | None


class Files:
    """The surface. `user_of` says which job still needs a file, if any."""

    def __init__(self, section: FineTuning, database: Database, user_of: Callable[[Connection, str], str]) -> None:
        self.section, self.database, self.user_of = section, database, user_of
        self.folder = Path(section.folder) / "files"

    async def show(self, asked: Asked) -> Page:
        """GET and POST /v1/files; GET and DELETE …/ID; GET …/ID/content. Raises AdmitError and StoreError."""
        allowed(self.section, asked.caller)
        await self.clean()
        match asked.parts:
            case ():
                ways = {"GET": self.listed, "POST": self.create}
            case (name,):
                ways = {"GET": partial(self.shown, name), "DELETE": partial(self.delete, name)}
            case (name, "content"):
                ways = {"GET": partial(self.content, name)}
            case _:
                raise NotFound(f"nothing is at {'/'.join(asked.parts)!r} here")
        return await taken(ways, asked)

    async def listed(self, asked: Asked) -> Page:
        """The tenant's files."""
        wanted = listing.window(asked.query, limit=DEFAULT_LIMIT, most=MOST_LIMIT, ascending=False)
        purpose = asked.query.get("purpose", "")
        found = await self.database.run(lambda database: file_rows.page(database, asked.tenant, wanted, purpose))
        if found is None:
            raise BadRequest(f"no file is called {wanted.after!r}", param="after")
        return page(listing.listed([file.told() for file in found], wanted))

    async def shown(self, name: str, asked: Asked) -> Page:
        """What is known of a file."""
        return page((await self.found(asked.tenant, name)).told())

    async def content(self, name: str, asked: Asked) -> Page:
        """The file as it was uploaded."""
        await self.found(asked.tenant, name)
        return Page(file=self.path(name), content_type=BYTES)

    async def delete(self, name: str, asked: Asked) -> Page:
        """Forget a file."""
        await self.found(asked.tenant, name)

        def forget(database: Connection) -> None:
            if job := self.user_of(database, name):
                raise BadRequest(f"the job {job} still needs this file: cancel it first", param="file_id")
            file_rows.leaves(database, name)

        await self.database.run(forget)
        await asyncio.to_thread(self.drop, [name])
        return page({"object": "file", "id": name, "deleted": True})

    async def create(self, asked: Asked) -> Page:
        """Take an upload: from memory, or from where it was spooled."""
        if asked.spool is None:
            return page((await asyncio.to_thread(self.take, asked, asked.body)).told())
        await asked.spool.whole()
        with mmap(asked.spool.file.fileno(), 0, access=ACCESS_READ) as body:
            return page((await asyncio.to_thread(self.take, asked, body)).told())

    def take(self, asked: Asked, body: bytes | mmap) -> File:
        """In a thread: check and keep a file. Raises AdmitError and StoreError."""
        upload = uploaded(body, asked.content_type)
        size = upload.file.end - upload.file.start
        if size > self.section.max_file_bytes:
            raise TooLarge(f"a file of at most {self.section.max_file_bytes} bytes", param="file")
        name = f"file-{token_hex(12)}"
        self.expect(asked.tenant, name, size)
        try:
            content = self.write(name, lambda out: copied(body, upload.file.start, upload.file.end, out))
            with content.open("rb") as file:
                held = summary(file)
            now_s = time()
            expires_s = None if upload.life_s is None else now_s + upload.life_s
            filename = shown_name(upload.file.filename)
            counts = msgspec.structs.astuple(held)
            return self.keep(File(asked.tenant, name, filename, PURPOSE, size, now_s, expires_s, *counts))
        except BaseException:
            self.drop([name])
            raise

    def expect(self, tenant: str, name: str, size: int) -> None:
        """In a thread: enter a file whose content is about to come. Raises BadRequest where its tenant has too many."""
        limit = self.section.tenant_bytes

        def enter(database: Connection) -> None:
            if file_rows.num_bytes(database, tenant) + size > limit:
                raise BadRequest(f"with this file there would be more than {limit} bytes: delete some", param="file")
            file_rows.comes(database, tenant, name, size)

        self.database.do(enter)

    def write(self, name: str, copy: Callable[[BinaryIO], object]) -> Path:
        """In a thread: a file's content, whole or not at all. Raises StoreError."""
        path = self.path(name)
        part = path.with_suffix(PART)
        try:
            private.folder(self.folder)
            with private.opened(part, "wb") as out:
                copy(out)
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise StoreError(f"the file {path.name} cannot be written ({error.strerror})") from error
        return path

    def keep(self, file: File) -> File:
        """In a thread: enter a file whose content is written. Raises StoreError where it took too long."""
        if not self.database.do(lambda database: file_rows.insert(database, file)):
            raise StoreError(f"the file {file.id} came too slowly: it is not awaited any more")
        return file

    def results(self, tenant: str, job: str, figures: str) -> str:
        """In a thread: a job's figures as a file of its tenant, once; its id."""
        name, content = f"file-{job.removeprefix('ftjob-')}", figures.encode()
        if self.database.do(lambda database: file_rows.one(database, tenant, name)) is None:
            self.database.do(lambda database: file_rows.comes(database, tenant, name, len(content)))
            self.write(name, lambda out: out.write(content))
            self.keep(File(tenant, name, f"{job}-metrics.csv", RESULTS, len(content), time(), None))
        return name

    async def found(self, tenant: str, name: str) -> File:
        """A file of this tenant. Raises NotFound."""
        file = await self.database.run(lambda database: file_rows.one(database, tenant, name))
        if file is None:
            raise NotFound(f"no file is called {name!r}")
        return file

    async def clean(self) -> None:
        """Let go of files whose time is over and that no job needs, and of what a kill left half come or half gone."""
        if names := await self.database.run(lambda database: file_rows.over(database, self.user_of)):
            await asyncio.to_thread(self.drop, names)

    def drop(self, names: Sequence[str]) -> None:
        """In a thread: delete the content of files that nobody has. Where that fails, `clean` does it."""
        with suppress(OSError, StoreError):
            for name in names:
                self.path(name).unlink(missing_ok=True)
                self.path(name).with_suffix(PART).unlink(missing_ok=True)
            self.database.do(lambda database: file_rows.left(database, names))

    def path(self, name: str) -> Path:
        """Where a file's content lies; names are ours."""
        return self.folder / f"{name}.jsonl"


def allowed(section: FineTuning, caller: Caller) -> None:
    """Raise Denied where this tenant may not fine-tune."""
    if section.tenants and caller.tenant not in section.tenants:
        raise Denied("this key's tenant may not fine-tune here: ask whoever keeps [fine_tuning] tenants")


def opener(section: FineTuning, callers: Mapping[bytes, Caller], workers: int = 1) -> Callable[..., Spool | None]:
    """Says whether a body too large for memory is an upload, and where it goes; raises AdmitError to who may not.

    A tenant's uploads under way take no more of the disk than its files may, shared among the workers.
    """
    rooms: dict[str, Room] = {}
    folder, limit_bytes = Path(section.folder) / "files", section.max_file_bytes + MOST_FORM_BYTES
    together_bytes = max(limit_bytes, section.tenant_bytes // workers)

    def opens(exchange: Exchange, wait: Callable[[], None], go_on: Callable[[], None]) -> Spool | None:
        if exchange.method != b"POST" or exchange.target.partition(b"?")[0] != START:
            return None
        caller = admit.caller(exchange.headers.get(b"authorization"), callers)
        allowed(section, caller)
        try:
            return Spool(folder, limit_bytes, rooms.setdefault(caller.tenant, Room(together_bytes)), wait, go_on)
        except OSError:
            return None

    return opens


def uploaded(body: bytes | mmap, content_type: str) -> Upload:
    """A form as what is to be kept. Raises BadRequest."""
    found = {part.name: part for part in parts(body, content_type)}
    texts = {
        name: bytes(body[part.start : min(part.end, part.start + MOST_FORM_BYTES)]).decode("utf-8", "replace")
        for name, part in found.items()
        if part.filename is None
    }
    if "file" not in found or found["file"].filename is None:
        raise BadRequest("send the file as the form's part `file`, with a file name", param="file")
    purpose = texts.get("purpose", "")
    if purpose != PURPOSE:
        raise BadRequest(f'only files for training are taken: say purpose="{PURPOSE}"', param="purpose")
    return Upload(found["file"], purpose, life(texts))


def life(texts: dict[str, str]) -> int | None:
    """How long a file is to be kept: OpenAI's `expires_after`. Raises BadRequest."""
    told = texts.get("expires_after[seconds]")
    if told is None:
        return None
    if not re.fullmatch(r"\d{1,8}", told) or not LEAST_LIFE_S <= int(told) <= MOST_LIFE_S:
        what = f"must be from {LEAST_LIFE_S} to {MOST_LIFE_S}"
        raise BadRequest(what, param="expires_after.seconds")
    return int(told)


def shown_name(filename: str | None) -> str:
    """A file's name as it is told again: without folders and without control characters."""
    name = re.split(r"[/\\]", filename or "")[-1]
    return "".join(char for char in name if char.isprintable())[:MOST_NAME_LETTERS] or "upload.jsonl"


def copied(body: bytes | mmap, start: int, end: int, out: BinaryIO) -> None:
    """Write a part of a buffer, a piece at a time."""
    out.writelines(body[at : min(at + COPY_BYTES, end)] for at in range(start, end, COPY_BYTES))
