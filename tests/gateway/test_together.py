"""Equal questions, in one gateway and in several: who leaves, what dies, and what the replies say of it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from test_faults import ASK, OK, STREAM, ask, entries, event, eventually
from test_hostile import post, read, status, talk

from conftest import Gateway, Start, Upstream, event_reply, forwarding, json_reply
from servers import PostgresServer, RedisServer
from stepwell.cache.tags import bump
from stepwell.store.url import store_at

DONE = b"data: [DONE]\n\n"
PATIENT = 'url = "{url}"\ndeadline_ms = 5000'
"""Tests do not fail because the machine is busy."""


class Words:
    """A stream upstream that says a word each time it is told to; then it ends, or dies."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.said, self.dies, self.stopped = upstream, 0, False, threading.Event()
        self.usage = b""
        """The event that counts, where there is one."""
        upstream.script = self.script

    async def script(self, _head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        told = 0
        try:
            while told < 5:
                if told < self.said:
                    told += 1
                    data = event(f"w{told} ")
                    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                    await writer.drain()
                await asyncio.sleep(0.005)
                if self.dies:
                    writer.close()
                    return
            end = self.usage + DONE
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
        except (ConnectionError, asyncio.CancelledError):
            self.stopped.set()
            raise
        finally:
            if told < 5:
                self.stopped.set()


def begin(gateway: Gateway, body: bytes, *lines: str) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", gateway.port), 10)
    line.sendall(post(body, "Connection: close", *lines))
    return line


def until(line: socket.socket, mark: bytes) -> bytes:
    """Read until something has come."""
    line.settimeout(10)
    told = b""
    while mark not in told:
        piece = line.recv(65536)
        assert piece, told
        told += piece
    return told


@pytest.fixture
def words(upstream: Upstream) -> Words:
    return Words(upstream)


def test_who_reads_along_and_counts_is_told_at_the_end_what_was_saved(serve: Start, words: Words) -> None:
    gateway = serve(forwarding(words.upstream))
    words.said = 2
    words.usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":5}}\n\n'
    counting = json.dumps({**json.loads(STREAM), "stream_options": {"include_usage": True}}).encode()
    with closing(begin(gateway, counting)) as leader, closing(begin(gateway, counting)) as follower:
        told = [until(leader, b"w2 "), until(follower, b"w2 ")]
        words.said = 5
        told = [told[0] + read(leader), told[1] + read(follower)]
    along = [each for each in told if b"collapsed" in each]
    assert len(along) == 1
    events = [json.loads(part) for part in re.findall(rb"data: (\{.*\})\n", along[0])]
    assert events[-1]["usage"]["completion_tokens"] > 0
    assert events[-1]["stepwell_saved_usd"] > 0
    assert b"Stepwell-Saved-Usd" not in along[0]
    assert all(b"stepwell_saved_usd" not in each for each in told if each is not along[0])


def test_a_follower_reads_along_and_stays_when_the_leader_leaves(serve: Start, words: Words) -> None:
    gateway = serve(forwarding(words.upstream))
    words.said = 2
    with closing(begin(gateway, STREAM)) as leader, closing(begin(gateway, STREAM)) as follower:
        until(leader, b"w2 ")
        told = until(follower, b"w2 ")
        leader.close()
        words.said = 5
        told += read(follower)
    assert b"fwd=miss; collapsed" in told or b"Stepwell-Step: large" in told
    assert told.endswith(b"0\r\n\r\n")
    assert all(f"w{at} ".encode() in told for at in range(1, 6))
    assert DONE in told
    assert len(words.upstream.requests) == 1
    assert b"Cache-Status: stepwell; hit" in ask(gateway, STREAM)
    gateway.stop()
    rows = entries(gateway)
    assert sum(row["usd"] > 0 for row in rows) == len({row["id"] for row in rows if row["step"] == "large"})
    assert any(row["id"].endswith("-rest") for row in rows), "what the leader left is written down"


def test_a_follower_who_leaves_costs_nobody_anything(serve: Start, words: Words) -> None:
    gateway = serve(forwarding(words.upstream))
    words.said = 1
    with closing(begin(gateway, STREAM)) as leader:
        told = until(leader, b"w1 ")
        with closing(begin(gateway, STREAM)) as follower:
            until(follower, b"w1 ")
        words.said = 5
        told += read(leader)
    assert told.endswith(b"0\r\n\r\n")
    assert len(words.upstream.requests) == 1


def test_where_all_leave_the_engine_is_told_to_stop(serve: Start, words: Words) -> None:
    gateway = serve(forwarding(words.upstream))
    words.said = 1
    with closing(begin(gateway, STREAM)) as leader, closing(begin(gateway, STREAM)) as follower:
        until(leader, b"w1 ")
        until(follower, b"w1 ")
        waits = begin(gateway, ASK)
        leader.close()
        time.sleep(0.1)
        assert not words.stopped.is_set()
    waits.close()
    words.said = 4
    eventually(words.stopped.is_set)
    gateway.stop()
    assert all(row["complete"] == 0 for row in entries(gateway))


def test_an_upstream_that_dies_in_mid_stream_is_an_error_for_all_and_a_clean_end_for_nobody(
    serve: Start, words: Words
) -> None:
    gateway = serve(forwarding(words.upstream, engine="retries = 0"))
    words.said = 2
    with closing(begin(gateway, STREAM)) as leader, closing(begin(gateway, STREAM)) as follower:
        first, second = until(leader, b"w2 "), until(follower, b"w2 ")
        with closing(begin(gateway, ASK)) as whole:
            time.sleep(0.1)
            words.dies = True
            first, second, third = first + read(leader), second + read(follower), read(whole)
    for told in (first, second):
        assert b'data: {"error":' in told
        assert DONE not in told
        assert not told.endswith(b"0\r\n\r\n")
    assert status(third) == 502
    assert len(words.upstream.requests) == 1


def test_replies_say_how_old_and_how_fresh_they_are(serve: Start, upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    route = "ttl_s = 1.0\nswr_s = 2.0\nsie_s = 100.0\nearly = 0.0"
    gateway = serve(forwarding(upstream, route=route, engine="retries = 0"))
    assert b"Cache-Status: stepwell; fwd=miss\r\n" in ask(gateway)
    told = ask(gateway)
    assert b"Cache-Status: stepwell; hit; ttl=" in told
    assert b"\r\nAge: 0\r\n" in told
    told = talk(gateway, post(ASK, "Connection: close", "Cache-Control: no-cache"))
    assert b"Cache-Status: stepwell; fwd=request\r\n" in told
    told = talk(gateway, post(ASK, "Connection: close", "Cache-Control: no-store"))
    assert b'Cache-Status: stepwell; fwd=bypass; detail="the caller wants nothing stored"\r\n' in told
    num_asked = len(upstream.requests)
    eventually(lambda: b"detail=stale-while-revalidate" in ask(gateway))
    eventually(lambda: len(upstream.requests) == num_asked + 1)
    upstream.script = json_reply(b"{}", "503 Oh")
    eventually(lambda: b"stepwell; fwd=stale; ttl=-" in (told := ask(gateway)) and b"detail=stale-if-error" in told, 10)
    told = talk(gateway, post(ASK, "Connection: close", "Cache-Control: stale-if-error=0"))
    assert status(told) == 503
    gateway.stop()
    refreshed = [row for row in entries(gateway) if row["id"].endswith("-refresh")]
    assert len(refreshed) >= 1
    assert json.loads(refreshed[0]["visits"])[0][:3] == ["cache", "deferred", "refresh: stale"]


def test_tags_are_checked_and_say_what_an_answer_depends_on(serve: Start, upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    gateway = serve(forwarding(upstream))
    tagged = ASK.replace(b'"model"', b'"metadata":{"stepwell_tags":"doc:1, doc:2"},"model"')
    assert b"fwd=miss" in ask(gateway, tagged)
    assert b"hit" in ask(gateway, tagged)
    file = str(gateway.folder / "stepwell-data" / "cache.db")

    async def bumped() -> None:
        store = store_at(file, limit_bytes=10**9, flush_ms=20)
        await bump(store, "doc:2", 1000.0)
        await store.close()

    asyncio.run(bumped())
    eventually(lambda: b"fwd=miss" in ask(gateway, tagged), 5)
    for wrong in (b"7", b'["a"]', b'"%b"' % (b"x" * 300), b'"%b"' % b",".join(b"%d" % at for at in range(99))):
        bad = ASK.replace(b'"model"', b'"metadata":{"stepwell_tags":%b},"model"' % wrong)
        told = ask(gateway, bad)
        assert status(told) == 400
        assert b"stepwell_tags" in told


# --- several gateways on one store


@pytest.fixture(params=["redis", "postgres"])
def store(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """The `[cache]` of a store that machines share, and the environment it wants."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return PATIENT.format(url=server.url), {}
    cluster: PostgresServer = request.getfixturevalue("postgres_server")
    patient = PATIENT.format(url=cluster.url) + '\npassword_env = "STORE_PASSWORD"'
    return patient, {"STORE_PASSWORD": cluster.password}


def shared(upstream: Upstream, cache: str) -> str:
    return forwarding(upstream) + f"\n[cache]\n{cache}\n"


def question(text: str, body: bytes = ASK) -> bytes:
    return body.replace(b'"hi"', json.dumps(text).encode())


def test_two_gateways_on_one_store_ask_once(
    serve: Start, upstream: Upstream, store: tuple[str, dict[str, str]]
) -> None:
    async def slow(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        await json_reply(OK)(head, body, writer)  # type: ignore[misc]

    upstream.script = slow
    cache, environment = store
    config = shared(upstream, cache)
    pair = serve(config, name="first", **environment), serve(config, name="second", **environment)
    asked = question(f"together on {cache}")
    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda at: ask(pair[at % 2], asked), range(20)))
    assert [status(one) for one in told] == [200] * 20
    assert len(upstream.requests) == 1
    assert all(b"hit" in ask(each, asked) for each in pair)


def test_the_lease_of_a_killed_gateway_ends(serve: Start, upstream: Upstream, redis_server: RedisServer) -> None:
    begun = threading.Event()

    async def hangs_once(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(30)
        await json_reply(OK)(head, body, writer)  # type: ignore[misc]

    upstream.script = hangs_once
    config = shared(upstream, PATIENT.format(url=redis_server.url) + "\nlease_s = 2.0")
    first, second = serve(config, name="first"), serve(config, name="second")
    asked = question("who holds the lease?")
    with closing(begin(first, asked)):
        assert begun.wait(10)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(ask, second, asked)
            time.sleep(0.3)
            assert not other.done()
            first.stop(signal.SIGKILL)
            assert status(other.result(20)) == 200
    assert len(upstream.requests) == 2


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server of one test's own, which may be killed."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.mark.usefixtures("redis_server")
def test_a_store_that_is_gone_costs_hits_and_comes_back(serve: Start, upstream: Upstream, redis: RedisServer) -> None:
    async def slow(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"slow" in body:
            await asyncio.sleep(0.5)
        await json_reply(OK)(head, body, writer)  # type: ignore[misc]

    upstream.script = slow
    gateway = serve(shared(upstream, PATIENT.format(url=redis.url)))
    assert b"fwd=miss\r\n" in ask(gateway)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(ask, gateway, question("slow")) for _ in range(2)]
        time.sleep(0.2)
        redis.stop(signal.SIGKILL)
        assert [status(one.result()) for one in both] == [200, 200]
    assert b"; hit" in ask(gateway), "memory has it"
    told = ask(gateway, question("new"))
    assert status(told) == 200
    assert b"Cache-Status: stepwell; fwd=miss; detail=store-unavailable\r\n" in told
    redis.start()
    eventually(lambda: b"fwd=miss\r\n" in ask(gateway, question(f"at {time.monotonic()}")), 15)


def test_what_one_gateway_invalidates_the_other_does_not_give(
    serve: Start, upstream: Upstream, redis_server: RedisServer
) -> None:
    upstream.script = json_reply(OK)
    config = shared(upstream, PATIENT.format(url=redis_server.url))
    pair = serve(config, name="first"), serve(config, name="second")
    asked = question("tagged", ASK.replace(b'"model"', b'"metadata":{"stepwell_tags":"doc:shared"},"model"'))
    ask(pair[0], asked)
    eventually(lambda: b"; hit" in ask(pair[1], asked))

    async def bumped() -> None:
        at = store_at(redis_server.url, limit_bytes=1, flush_ms=1, deadline_ms=5000)
        await bump(at, "doc:shared", 1000.0)
        await at.close()

    asyncio.run(bumped())
    eventually(lambda: b"; hit" not in ask(pair[0], asked))
    eventually(lambda: b"; hit" not in ask(pair[1], asked) or len(upstream.requests) > 1)
    eventually(lambda: all(b"; hit" in ask(each, asked) for each in pair))
    assert 2 <= len(upstream.requests) <= 3


def test_streams_of_many_are_one_call(serve: Start, upstream: Upstream) -> None:
    upstream.script = event_reply(*(event(f"w{at} ") for at in range(20)), DONE, gap_s=0.02)
    gateway = serve(forwarding(upstream))
    with ThreadPoolExecutor(50) as pool:
        told = list(pool.map(lambda _: ask(gateway, STREAM), range(50)))
    assert all(one.count(b"data: ") == 21 for one in told)
    assert len(upstream.requests) == 1
