"""The pool of connections: fair, bounded, and clean after whatever a server does; on both event loops."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from typing import Any

import pytest
import uvloop
from asks import OK, STREAM, all_of, ask, engine, event, raw

from conftest import Upstream, event_reply, json_reply
from stepwell.drive import Drive
from stepwell.engines import openai as wire
from stepwell.engines.pool import ConnectTimeout, Patience, Pool, address_of
from stepwell.errors import EngineBadReply, EngineError, EngineTimeout, EngineUnavailable

POST = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


def pool(url: str, limit: int = 4, *, connect_s: float = 2.0, first_byte_s: float = 2.0) -> Pool:
    return Pool(address_of(url), Patience(connect_s, first_byte_s, 5.0), limit)


async def asked(connections: Pool) -> bytes:
    return await (await connections.ask(POST)).body()


def whole(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


async def test_who_waits_longest_is_served_first(upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    connections = pool(upstream.url, 1)
    order: list[str] = []

    async def one(name: str) -> None:
        await asked(connections)
        order.append(name)

    async def greedy() -> None:
        for at in range(4):
            await one(f"greedy {at}")

    first = asyncio.ensure_future(greedy())
    await asyncio.sleep(0)
    await asyncio.gather(first, *(one(f"waits {at}") for at in range(3)))
    assert order == ["greedy 0", "waits 0", "waits 1", "waits 2", "greedy 1", "greedy 2", "greedy 3"]
    assert upstream.num_connections == 1
    await connections.close()


async def test_a_cancelled_opening_gives_its_place_to_the_next(upstream: Upstream) -> None:
    connections = pool(upstream.url.replace("http:", "https:"), 1, connect_s=0.3)  # nobody answers the handshake
    opening = asyncio.ensure_future(asked(connections))
    await asyncio.sleep(0.05)
    waiting = [asyncio.ensure_future(asked(connections)) for _ in range(2)]
    await asyncio.sleep(0.05)
    opening.cancel()
    waiting[0].cancel()
    with pytest.raises(ConnectTimeout):
        await waiting[1]
    assert connections.wires == set()
    await asyncio.gather(opening, waiting[0], return_exceptions=True)


async def test_everybody_in_line_learns_that_nobody_listens() -> None:
    connections = pool(f"http://127.0.0.1:{dead_port()}/v1", 2)
    told = await asyncio.gather(*(asked(connections) for _ in range(10)), return_exceptions=True)
    assert [type(each) for each in told] == [EngineUnavailable] * 10
    assert connections.wires == set()


def dead_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])


async def test_servers_that_slam_the_door_cost_no_place() -> None:
    async def slam(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(slam, "127.0.0.1", 0)
    connections = pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", 2)
    for _ in range(20):
        with pytest.raises(EngineUnavailable):
            await asked(connections)
    assert connections.wires == set()
    server.close()


async def test_idle_connections_that_the_server_closed_are_forgotten(upstream: Upstream) -> None:
    async def brief(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await json_reply(OK)(head, body, writer)  # type: ignore[misc]
        await asyncio.sleep(0.02)
        writer.close()

    upstream.script = brief
    connections = pool(upstream.url, 20)
    await asyncio.gather(*(asked(connections) for _ in range(20)))
    await asyncio.sleep(0.2)
    assert (len(connections.wires), len(connections.free)) == (0, 0)
    assert await asked(connections) == OK
    await connections.close()


async def test_a_request_goes_out_once_more_at_most(upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    connections = pool(upstream.url)
    await asyncio.gather(*(asked(connections) for _ in range(4)))
    upstream.requests.clear()
    upstream.script = raw()  # reads the request, and closes
    with pytest.raises(EngineUnavailable, match="without a reply"):
        await asked(connections)
    assert len(upstream.requests) == 2
    await connections.close()


@pytest.mark.parametrize(
    "second", [b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\n   ", b"garbage\r\n\r\n", b"HTTP/1.1 2"]
)
@pytest.mark.parametrize("gap_s", [0.0, 0.02])
async def test_what_follows_a_whole_reply_is_no_part_of_it_nor_of_the_next(
    upstream: Upstream, second: bytes, gap_s: float
) -> None:
    upstream.script = (
        raw(whole(OK), second, gap_s=gap_s, close=False) if gap_s else raw(whole(OK) + second, close=False)
    )
    connections = pool(upstream.url)
    for _ in range(3):
        reply = await connections.ask(POST)
        assert (reply.status, await reply.body()) == (200, OK)
        await asyncio.sleep(0.04)
    assert upstream.num_connections == 3
    await connections.close()


async def test_a_stream_whose_end_comes_late_keeps_its_connection(upstream: Upstream) -> None:
    upstream.script = event_reply(*STREAM, gap_s=0.005)  # the end of the body is a write of its own
    up = engine(upstream.url)
    for _ in range(4):
        assert [chunk.data async for chunk in up.generate(ask(stream=True))] == STREAM
        await asyncio.sleep(0.05)
    assert upstream.num_connections == 1
    await up.close()


async def test_a_stream_whose_end_never_comes_does_not(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.engines.wire.EBB_S", 0.05)
    gone = threading.Event()

    async def endless(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        told = event("a") + wire.DONE
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(told), told))
        with suppress(ConnectionError):
            while True:
                writer.write(b"5\r\n: hi\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.005)
        gone.set()

    upstream.script = endless
    up = engine(upstream.url)
    assert [chunk.last async for chunk in up.generate(ask(stream=True))] == [False, True]
    assert await asyncio.to_thread(gone.wait, 5)
    assert up.pool.wires == set()
    await up.close()


async def test_a_reply_that_comes_faster_than_it_is_read_leaves_a_connection_that_reads(upstream: Upstream) -> None:
    connections = pool(upstream.url)
    upstream.script = raw(whole(b"x" * 3_000_000), close=False)
    reply = await connections.ask(POST)
    reply.wire.transport.pause_reading()
    reply.wire.paused = True
    reply.wire.data_received(b"x" * (3_000_000 - reply.wire.unread_bytes))  # as if all had come in one read
    assert len(await reply.body()) == 3_000_000
    assert not reply.wire.paused
    await connections.close()


async def test_errors_are_of_the_tree_whatever_comes(upstream: Upstream) -> None:
    good = whole(OK, b"X-A: b\r\n")
    for at in range(len(good) - len(OK)):
        upstream.script = raw(good[:at] + b"\x00" + good[at:])
        connections = pool(upstream.url)
        with suppress(EngineError):
            assert isinstance(await asked(connections), bytes)
        assert len(connections.wires) <= 1
        await connections.close()


async def medley(upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    up = engine(upstream.url, max_connections=3)
    told = await asyncio.gather(*(anext(up.generate(ask())) for _ in range(20)))
    assert [chunk.data for chunk in told] == [OK] * 20
    assert upstream.num_connections == 3
    await up.close()
    upstream.script = event_reply(*STREAM, gap_s=0.002)
    assert [chunk.data for chunk in await all_of(engine(upstream.url), ask(stream=True))] == STREAM
    upstream.script = event_reply(event("De"), gap_s=0.01, ends=False)
    with pytest.raises(EngineBadReply, match="mid-reply"):
        await all_of(engine(upstream.url), ask(stream=True))
    upstream.script = raw(b"", gap_s=5)
    with pytest.raises(EngineTimeout, match="no byte"):
        await all_of(engine(upstream.url, first_byte_timeout_s=0.1), ask())
    with pytest.raises(ConnectTimeout):
        await all_of(engine(upstream.url.replace("http:", "https:"), connect_timeout_s=0.1), ask())


async def driven(upstream: Upstream) -> None:
    """The same outside of any task, as the gateway does it."""
    upstream.script = json_reply(OK)
    up = engine(upstream.url, max_connections=2)
    told: list[bytes] = []
    loop = asyncio.get_running_loop()
    all_told = loop.create_future()

    async def one() -> None:
        told.append((await anext(up.generate(ask()))).data)
        if len(told) == 10:
            all_told.set_result(None)

    drives = [Drive(one(), loop) for _ in range(12)]
    drives[1].cancel()  # while it connects
    drives[5].cancel()  # while it waits in line
    await asyncio.wait_for(all_told, 5)
    assert told == [OK] * 10
    assert all(drive.over for drive in drives)
    assert (len(up.pool.line), len(up.pool.busy)) == (0, 0)
    await up.close()


@pytest.mark.parametrize("scene", [medley, driven])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_both_event_loops_do(
    upstream: Upstream,
    scene: Callable[[Upstream], Coroutine[Any, Any, None]],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scene(upstream))
