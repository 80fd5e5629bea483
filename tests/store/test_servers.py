"""Servers that die, hang, refuse or are something else: an error in time, and recovery by itself."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from conftest import running
from servers import PostgresServer, RedisServer
from stepwell.errors import StoreError
from stepwell.protocols import Store
from stepwell.store.url import store_at
from store.places import opened

DEADLINE_MS = 300


@pytest.fixture(params=[RedisServer, PostgresServer])
def server(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer | PostgresServer]:
    """A server of this test's own, to be maltreated."""
    monkeypatch.setenv("STORE_PASSWORD", PostgresServer.password)
    yield from running(request.param)


def at(server: RedisServer | PostgresServer, deadline_ms: int = DEADLINE_MS) -> Store:
    return opened(server.url, "STORE_PASSWORD" if isinstance(server, PostgresServer) else "", deadline_ms)


def later() -> float:
    return time.time() + 3600


async def error_of(asking: Any) -> str:
    """What went wrong, within a bounded time."""
    with pytest.raises(StoreError) as caught:
        await asyncio.wait_for(asking, 5)
    return str(caught.value)


async def told(server: RedisServer, *command: str) -> None:
    async with Redis.from_url(server.url) as client:
        await client.execute_command(*command)


async def said(server: PostgresServer, statement: str) -> None:
    database = await asyncpg.connect(server.url, password=server.password)
    await database.execute(statement)
    await database.close()


async def recovered(store: Store, key: bytes) -> tuple[bytes, float] | None:
    end_s = time.monotonic() + 20
    while True:
        with suppress(StoreError):
            return await store.get(key)
        assert time.monotonic() < end_s
        await asyncio.sleep(0.05)


async def test_a_server_that_dies_costs_errors_and_comes_back(
    server: RedisServer | PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = at(server)
    await recovered(store, b"k")
    await store.put(b"k", b"v", later())
    await store.append(b"log", b"one", later())
    first = await store.lease(b"k", 60)
    server.stop(signal.SIGKILL)
    for asking in (store.get(b"k"), store.put(b"k", b"w", later()), store.since(b"log", 0, 9), store.lease(b"l", 9)):
        assert server.url.partition(":")[0][:5] in (await error_of(asking)).lower()
    told = [await error_of(store.get(b"k")) for _ in range(10)]
    assert "left alone" in told[-1]
    server.start()
    found = await recovered(store, b"k")
    assert found is None or found[0] == b"v"
    await asyncio.sleep(1.1)
    assert [row for _, row in await store.since(b"log", 0, 9)] == [b"one"]
    assert await store.lease(b"k", 9) is None or first is None
    await store.append(b"log", b"two", later())
    assert [row for _, row in await store.since(b"log", 0, 9)] == [b"one", b"two"]
    await store.close()
    assert "requests go on without it" in caplog.text


async def test_a_server_that_hangs_costs_no_more_than_the_deadline(server: RedisServer | PostgresServer) -> None:
    store = at(server)
    await recovered(store, b"k")
    await store.put(b"k", b"v", later())
    server.stop(signal.SIGSTOP)
    assert "did not answer within 300 ms" in await error_of(store.get(b"k"))
    asked = [asyncio.ensure_future(store.get(b"k")) for _ in range(50)]
    for task in asked:
        await error_of(task)
    assert "left alone" in await error_of(store.get(b"k"))
    server.stop(signal.SIGCONT)
    found = await recovered(store, b"k")
    assert found is not None
    assert found[0] == b"v"
    await store.close()


async def test_a_server_that_is_not_there_yet_is_found_when_it_comes(server: RedisServer | PostgresServer) -> None:
    server.stop()
    store = at(server)
    await error_of(store.get(b"k"))
    server.start()
    assert await recovered(store, b"k") is None
    await store.put(b"k", b"v", later())
    await store.close()


async def test_what_is_still_asked_when_it_closes_is_told(server: RedisServer | PostgresServer) -> None:
    store = at(server, 5000)
    await store.put(b"k", b"v", later())
    server.stop(signal.SIGSTOP)
    asked = [asyncio.ensure_future(ask) for ask in (store.get(b"k"), store.lease(b"k", 9), store.drop(b"k"))]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(store.close(), 5)
    assert ["is closed" in await error_of(task) for task in asked] == [True] * 3
    assert "is closed" in await error_of(store.get(b"k"))
    server.stop(signal.SIGCONT)


async def test_too_many_who_wait_are_turned_away(
    server: RedisServer | PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.store.line.MAX_WAITING", 20)
    store = at(server)
    await recovered(store, b"k")
    told = await asyncio.gather(*(store.get(b"k") for _ in range(30)), return_exceptions=True)
    assert told[:20] == [None] * 20
    assert all("too slow" in str(each) for each in told[20:])
    assert await store.get(b"k") is None
    await store.close()


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\xff" * 5000])
async def test_something_else_at_that_port_is_an_error(scheme: str, reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(reply)
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    store = opened(f"{scheme}://127.0.0.1:{port}/0", "", DEADLINE_MS)
    for _ in range(5):
        await error_of(store.get(b"k"))
    await store.close()
    other.close()


async def test_a_full_redis_takes_nothing_more_and_still_answers() -> None:
    for server in running(RedisServer):
        store = opened(server.url)
        await store.put(b"k", b"v", later())
        await told(server, "CONFIG", "SET", "maxmemory", "1mb")
        for _ in range(5):
            assert "refuses" in await error_of(store.put(b"big", b"x" * 1_000_000, later()))
            assert "refuses" in await error_of(store.append(b"log", b"x" * 1_000_000, later()))
        found = await store.get(b"k")
        assert found is not None
        assert found[0] == b"v"
        await store.close()


async def test_a_connection_that_was_cut_while_idle_costs_nothing(server: RedisServer | PostgresServer) -> None:
    store = at(server, 5000)
    await store.put(b"cut", b"v", later())
    assert await store.get(b"cut") is not None
    if isinstance(server, RedisServer):
        await told(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    else:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stepwell'"
        await said(server, others)
    await asyncio.sleep(0.1)
    assert await store.get(b"cut") is not None
    await store.close()


async def test_tables_that_somebody_dropped_are_made_again(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_PASSWORD", postgres_server.password)
    store = opened(postgres_server.url, "STORE_PASSWORD")
    await store.append(b"dropped", b"one", later())
    (before,) = await store.since(b"dropped", 0, 9)
    await said(
        postgres_server, "DROP TABLE stepwell_logged, stepwell_kept, stepwell_leases; DROP SEQUENCE stepwell_numbers"
    )
    await error_of(store.append(b"dropped", b"lost", later()))
    await store.append(b"dropped", b"two", later())
    (after,) = await store.since(b"dropped", before[0], 9)
    assert after[1] == b"two"
    await store.put(b"dropped", b"v", later())
    assert await store.get(b"dropped") is not None
    await store.close()


async def test_many_who_start_at_once_make_the_tables_once(server: RedisServer | PostgresServer) -> None:
    stores = [at(server, 10_000) for _ in range(6)]
    await asyncio.gather(*(store.append(b"log", b"row", later()) for store in stores))
    assert len(await stores[0].since(b"log", 0, 9)) == 6
    for store in stores:
        await store.close()


async def test_a_redis_that_forgot_everything_goes_on_above(redis_server: RedisServer) -> None:
    store = opened(redis_server.url)
    await store.append(b"forgotten", b"one", later())
    (before,) = await store.since(b"forgotten", 0, 9)
    fence = await store.lease(b"forgotten", 60)
    await told(redis_server, "FLUSHALL")
    await store.append(b"forgotten", b"two", later())
    (after,) = await store.since(b"forgotten", before[0], 9)
    again = await store.lease(b"forgotten", 60)
    assert after[1] == b"two"
    assert fence is not None
    assert again is not None
    assert again > fence
    await store.put(b"forgotten", b"old", later(), fence)
    assert await store.get(b"forgotten") is None
    await store.close()


async def test_a_wrong_password_is_an_error_that_says_so(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "sesame")
    store = opened(postgres_server.url, "WRONG", 5000)
    said = await error_of(store.get(b"k"))
    assert "password" in said
    assert "sesame" not in said
    await store.close()


REFUSED: list[tuple[str, str, str]] = [
    ("redis://:secret@localhost/0", "", "holds a password"),
    ("postgresql://well:secret@localhost/db", "", "holds a password"),
    ("postgresql://localhost/db?password=secret", "", "holds a password"),
    ("mysql://localhost", "", "no store speaks mysql://"),
    ("redis://localhost:port", "", "cannot be read"),
    ("redis://localhost", "NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE is not set"),
]


@pytest.mark.parametrize(("url", "variable", "why"), REFUSED)
def test_a_url_that_will_not_do_is_refused_and_its_secret_not_repeated(url: str, variable: str, why: str) -> None:
    with pytest.raises(StoreError, match=why) as caught:
        store_at(url, limit_bytes=1000, flush_ms=5, password_env=variable)
    assert "secret" not in str(caught.value)
