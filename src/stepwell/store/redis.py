"""A Store in Redis or Valkey: what several machines share. Time is the server's.

Values and leases are keys that expire, logs are streams, whose ids rise even where the server's clock is set back. Two
lines: reads never queue behind writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004 - the client's own

from stepwell.store.clock import expiry_s, left_s
from stepwell.store.line import CONNECT_S, VALUES_TOGETHER, Line

LEASE = """
local last = tonumber(redis.call('GET', KEYS[2]) or 0)
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local now = redis.call('TIME')
local fence = string.format('%.0f', math.max(last + 1, now[1] * 1000000 + now[2]))
redis.call('SET', KEYS[1], fence, 'PX', ARGV[1])
redis.call('SET', KEYS[2], fence, 'PX', ARGV[1] + 86400000)
return fence
"""
"""Above every earlier number, even one from before a restart: it is the time of day in microseconds."""
PUT_FENCED = """
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return end
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) else redis.call('DEL', KEYS[1]) end
"""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
APPEND = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, row in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 2)) do
  if tonumber(row[2][4]) <= now then redis.call('XDEL', KEYS[1], row[1]) end
end
redis.call('XADD', KEYS[1], '*', 'row', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]))
"""
"""Each row that comes may take two that are over from the front."""

SEQUENCE_BITS = 22
"""A position is a stream's id: milliseconds, then a number among rows of that millisecond."""
PLACE = "the Redis store"
WRITE_S = 1.0

Command = tuple[Any, ...]
Question = Callable[[], Sequence[Command]]
"""Its commands, as they are at the moment when they are sent: what is left of a lifetime does not wait in a queue."""


class Redis:
    """A Store; each question is one or more commands, and what is asked in the same moment is one pipeline."""

    name = "redis"

    def __init__(self, url: str, *, password: str = "", deadline_s: float = 0.05) -> None:
        """Nothing is asked of the server yet; one that is not there costs StoreErrors, not a start."""
        settings: dict[str, Any] = {"socket_connect_timeout": CONNECT_S, "socket_timeout": None, "protocol": 2}
        if password:
            settings["password"] = password
        pool = ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **settings)
        self.reading: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        self.writing: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        self.reads: Line[Question, list[Any]] = Line(PLACE, self.read, deadline_s)
        write_s = max(deadline_s, WRITE_S)
        self.writes: Line[Question, list[Any]] = Line(PLACE, partial(carry, self.writing), write_s, VALUES_TOGETHER)

    async def read(self, questions: list[Question]) -> list[list[Any] | Exception]:
        """Ask; once more on a new connection, where the old one was cut while nobody used it."""
        used = self.reading.is_connected
        try:
            return await carry(self.reading, questions)
        except ConnectionError:
            if not used:
                raise
            return await carry(self.reading, questions)

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        """Value and expiry by this process's clock, or None."""
        place = named("v", key)
        value, ms = await self.reads.ask(lambda: (("GET", place), ("PTTL", place)))
        return (value, expiry_s(ms / 1000)) if value is not None and ms > 0 else None

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        """Keep a value, unless its fence is not that of the last lease on `key`."""
        place, fences = named("v", key), named("f", key)
        if fence:
            await self.writes.ask(lambda: (("EVAL", PUT_FENCED, 2, place, fences, value, left_ms(expires_s), fence),))
        else:
            await self.writes.ask(lambda: (kept(place, value, left_ms(expires_s)),))

    async def drop(self, key: bytes) -> None:
        """Forget a value."""
        await self.writes.ask(lambda: (("DEL", named("v", key)),))

    async def lease(self, key: bytes, ttl_s: float) -> int | None:
        """A fencing number, or None while somebody else holds one."""
        ttl_ms = max(1, int(ttl_s * 1000))
        (fence,) = await self.writes.ask(lambda: (("EVAL", LEASE, 2, named("l", key), named("f", key), ttl_ms),))
        return int(fence) if fence is not None else None

    async def release(self, key: bytes, fence: int) -> None:
        """End a lease early."""
        await self.writes.ask(lambda: (("EVAL", RELEASE, 1, named("l", key), fence),))

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        """Add a row to a log."""
        await self.writes.ask(lambda: (("EVAL", APPEND, 1, named("s", log), row, left_ms(expires_s)),))

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        """Rows behind `position`."""
        while True:
            rows: Command = ("XRANGE", named("s", log), stream_id(position + 1), "+", "COUNT", limit)
            now, found = await self.writes.ask(partial(tuple, (("TIME",), rows)))
            now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
            living = [(at(each), row) for each, (_, row, _, until_ms) in found if int(until_ms) > now_ms]
            if living or len(found) < limit:
                return living
            position = at(found[-1][0])

    async def close(self) -> None:
        """Give the connections back."""
        await self.reads.close()
        await self.writes.close()
        await self.reading.disconnect()
        await self.writing.disconnect()


async def carry(connection: AbstractConnection, questions: list[Question]) -> list[list[Any] | Exception]:
    """Send all commands of all questions at once; the first error among a question's replies is its reply.

    The connection is made when it is needed; whatever breaks off in the middle ends it. Raises RedisError.
    """
    asked = [question() for question in questions]
    commands = [command for part in asked for command in part]
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    told = iter([await reply(connection) for _ in commands])
    replies = [[next(told) for _ in part] for part in asked]
    return [next((each for each in part if isinstance(each, Exception)), part) for part in replies]


async def reply(connection: AbstractConnection) -> Any:  # noqa: ANN401 - whatever the command returns
    """The next reply; the server's no is one, too."""
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def named(kind: str, key: bytes) -> bytes:
    """A key of ours: values, leases, fences and streams apart."""
    return b"stepwell:%b:%b" % (kind.encode(), key)


def left_ms(expires_s: float) -> int:
    """Whole milliseconds until then."""
    return int(left_s(expires_s) * 1000)


def kept(place: bytes, value: bytes, left_ms: int) -> Command:
    """Keep a value for a while; the server takes no lifetime of 0."""
    return ("SET", place, value, "PX", left_ms) if left_ms > 0 else ("DEL", place)


def at(stream_id: bytes) -> int:
    """The position that a stream's id stands for."""
    ms, _, number = stream_id.partition(b"-")
    return (int(ms) << SEQUENCE_BITS) + int(number)


def stream_id(position: int) -> str:
    """The id that stands for a position."""
    return f"{position >> SEQUENCE_BITS}-{position & ((1 << SEQUENCE_BITS) - 1)}"
