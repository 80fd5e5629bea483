"""Any OpenAI-compatible server as an Engine: timeouts, retries before the first byte, a breaker, kept connections."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from time import time

from stepwell.breaker import Breaker
from stepwell.config import HttpEngine
from stepwell.engines import openai
from stepwell.engines.pool import ConnectTimeout, Patience, Pool, address_of
from stepwell.engines.wire import Reply
from stepwell.errors import ConfigError, EngineBadReply, EngineError, EngineRefusal, EngineUnavailable
from stepwell.protocols import Take
from stepwell.types import Chunk, Request

Key = Callable[[], Awaitable[str]]
"""Gives the bearer key of the moment; it may have to be fetched."""

OK = 200
NO_EVENTS = openai.Events()
OUR_KEY_REFUSED = (401, 403)
TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
LONGEST_WAIT_S = 5.0
"""A server that asks us to wait longer than this before a retry is not waited for."""


class OurKeyRefused(EngineRefusal):
    """The server does not know our key: nothing the caller could mend, and nothing a retry would."""


class Http:
    """One server. `key` gives its bearer key, where it wants one."""

    def __init__(self, name: str, config: HttpEngine, key: Key | None = None) -> None:
        self.name, self.config, self.key = name, config, key
        self.address = address_of(config.url, f"engines.{name}.url")
        patience = Patience(config.connect_timeout_s, config.first_byte_timeout_s, config.total_timeout_s)
        self.pool = Pool(self.address, patience, config.max_connections)
        self.breaker = Breaker(config.breaker_failures, config.breaker_open_s)
        self.heads: dict[tuple[str, str], bytes] = {}
        for header, value in config.headers.items():
            if not fits_header(header + value):
                raise ConfigError("a header is of ASCII letters in one line", field=f"engines.{name}.headers.{header}")

    def generate(self, request: Request) -> Generation:
        """Ask, and pass on what comes; see `protocols.Engine`."""
        return Generation(self, request)

    async def close(self) -> None:
        """Close the connections."""
        await self.pool.close()

    async def written(self, request: Request) -> bytes:
        """The whole request as bytes."""
        body = openai.body_for(request, self.config.model)
        key = await self.key() if self.key is not None else ""
        head = self.heads.get((request.kind, key))
        if head is None:
            self.heads.clear()  # keys change, and old ones are of no use
            head = self.heads[request.kind, key] = self.head(request, key)
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)

    def head(self, request: Request, key: str) -> bytes:
        """The head up to the length of the body. Raises EngineUnavailable for a key that fits no header."""
        if not fits_header(key):
            raise EngineUnavailable("our key has line breaks or letters that no header can hold; check key_env")
        lines = [
            f"POST {self.address.path}{openai.PATHS[request.kind]} HTTP/1.1",
            f"Host: {self.address.host_header}",
            "Content-Type: application/json",
            "Accept: */*",
            *([f"Authorization: Bearer {key}"] if key else []),
            *(f"{name}: {value}" for name, value in self.config.headers.items()),
            "Content-Length: ",
        ]
        return "\r\n".join(lines).encode("latin-1")

    def pass_breaker(self) -> None:
        """Raise EngineUnavailable while the breaker is open."""
        wait_s = self.breaker.wait_s()
        if wait_s:
            raise EngineUnavailable(f"left alone for {wait_s:.1f} s after failures in a row", engine=self.name)

    def judge(self, error: EngineError) -> None:
        """Name the engine, and tell the breaker; a server that understood and said no is a server that works."""
        error.engine = error.engine or self.name
        if isinstance(error, EngineRefusal) and error.status < 500:  # noqa: PLR2004
            self.breaker.succeeded()
        else:
            self.breaker.failed()

    def pause_s(self, error: EngineError, attempt: int) -> float:
        """How long to wait before the next try: what the server asks for, else doubling with full jitter."""
        if isinstance(error, EngineRefusal) and error.retry_after_s is not None:
            return error.retry_after_s
        return random.uniform(0, self.config.retry_base_s * 2**attempt)  # noqa: S311 - jitter, no secret


class Generation:
    """One reply on its way (`protocols.Chunks`): tried again until its first chunk, then read as it comes."""

    __slots__ = ("begun", "engine", "events", "ready", "reply", "request", "take")

    def __init__(self, engine: Http, request: Request) -> None:
        self.engine, self.request = engine, request
        self.reply: Reply | None = None
        self.events = NO_EVENTS
        self.ready: deque[Chunk] = deque()
        self.begun = False
        self.take: Take | None = None

    def direct(self, take: Take) -> None:
        """See `protocols.Direct`."""
        self.take = take

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Chunk:
        ready = self.ready
        while not ready:
            if not self.begun:
                return await self.first()
            reply = self.reply
            if reply is None or self.events.ended:
                await self.aclose()
                raise StopAsyncIteration
            wire = reply.wire
            if wire.quiet():
                wire.lane = self.words if self.take is not None else None
                await wire.baton
                wire.lane = None
            try:
                self.read(reply)
            except EngineError as error:
                self.engine.judge(error)
                await self.aclose()
                raise
        return ready.popleft()

    def words(self, piece: bytes) -> bool:
        """Give words away at once; whatever is more waits to be read."""
        return self.events.are_words(piece) and self.take is not None and self.take(piece)

    async def aclose(self) -> None:
        """Give the connection back, or hang up where the server is still talking."""
        if self.reply is not None:
            self.reply.close(read=self.events.ended)
            self.reply = None

    async def first(self) -> Chunk:
        """The first chunk, after as many tries as are allowed."""
        engine = self.engine
        for attempt in range(engine.config.retries + 1):
            engine.pass_breaker()
            try:
                chunk = await self.tried()
            except EngineError as error:
                engine.judge(error)
                if attempt == engine.config.retries or not worth_retrying(error) or engine.breaker.is_open():
                    raise
                await asyncio.sleep(engine.pause_s(error, attempt))
            except BaseException:
                engine.breaker.undecided()
                raise
            else:
                engine.breaker.succeeded()
                self.begun = True
                return chunk
        raise EngineUnavailable("no try is allowed", engine=engine.name)

    async def tried(self) -> Chunk:
        """One try: send, check the status, read the first chunk."""
        engine, request = self.engine, self.request
        reply = await engine.pool.ask(await engine.written(request))
        if reply.status != OK:
            raise refusal(reply, await reply.body())
        if not request.stream:
            return openai.whole(await reply.body())
        self.reply, self.events = reply, openai.Events()
        try:
            while not self.ready:
                if reply.wire.quiet():
                    await reply.wire.baton
                self.read(reply)
        except BaseException:
            await self.aclose()
            raise
        return self.ready.popleft()

    def read(self, reply: Reply) -> None:
        """Take what has arrived. Raises EngineError where the stream breaks off."""
        piece = reply.take()
        if piece:
            self.ready.extend(self.events.feed(piece))
        elif reply.wire.complete and self.events.num_finished < openai.num_choices(self.request):
            raise EngineBadReply("the stream ended before its end mark")
        elif reply.wire.complete:
            self.events.ended = True
            self.ready.append(Chunk(openai.DONE, last=True))


def fits_header(text: str) -> bool:
    """Say whether a text can stand in a header: one line of ASCII."""
    return text.isascii() and text.isprintable()


def worth_retrying(error: EngineError) -> bool:
    """Say whether the same request may fare better on another try; who was slow once has cost enough time."""
    if isinstance(error, OurKeyRefused):
        return False
    if isinstance(error, EngineRefusal):
        return error.status in TRY_AGAIN and (error.retry_after_s or 0) <= LONGEST_WAIT_S
    return isinstance(error, EngineUnavailable | ConnectTimeout | EngineBadReply)


def refusal(reply: Reply, body: bytes) -> EngineError:
    """What a status other than 200 means."""
    if reply.status in OUR_KEY_REFUSED:
        what = f"the server refuses our key (status {reply.status}); check key_env"
        return OurKeyRefused(what, engine="", status=502, body=b"")
    kept = body if body.lstrip()[:1] == b"{" else b""
    status = reply.status if 400 <= reply.status < 600 else 502  # noqa: PLR2004
    return EngineRefusal(
        f"the server answered with status {reply.status}",
        engine="",
        status=status,
        body=kept,
        retry_after_s=seconds_of(reply.headers.get(b"retry-after")),
    )


def seconds_of(retry_after: bytes | None) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110); None where it cannot be read."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after.decode("latin-1")).timestamp() - time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
