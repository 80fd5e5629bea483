"""Gateways that share a store: one's answers serve the other, and a store that dies costs nobody an answer."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from test_faults import ASK, OK, ask

from conftest import Gateway, Start, Upstream, forwarding, json_reply, running
from servers import PostgresServer, RedisServer


@pytest.fixture(params=[RedisServer, PostgresServer])
def server(request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("STORE_PASSWORD", PostgresServer.password)
    yield from running(request.param)


def shared(upstream: Upstream, server: RedisServer | PostgresServer) -> str:
    password = 'password_env = "STORE_PASSWORD"' if isinstance(server, PostgresServer) else ""
    return f'{forwarding(upstream)}\n[cache]\nurl = "{server.url}"\n{password}\n'


def status(gateway: Gateway, body: bytes = ASK) -> str:
    """What the gateway says of its cache; the answer itself must be right."""
    reply = ask(gateway, body)
    assert reply.startswith(b"HTTP/1.1 200"), reply
    assert b"Deep." in reply
    return next(line for line in reply.split(b"\r\n") if line.lower().startswith(b"cache-status")).decode()


def question(number: int) -> bytes:
    return ASK.replace(b"hi", b"hi %d" % number)


def test_one_gateways_answer_serves_the_other(
    serve: Start, upstream: Upstream, server: RedisServer | PostgresServer
) -> None:
    upstream.script = json_reply(OK)
    first, second = (serve(shared(upstream, server), name=name) for name in ("first", "second"))
    status(first)
    end_s = time.monotonic() + 10
    while "hit" not in status(second):
        assert time.monotonic() < end_s
    num_asked = len(upstream.requests)
    assert "hit" in status(first)
    assert len(upstream.requests) == num_asked


def test_a_store_that_dies_costs_nobody_an_answer(
    serve: Start, upstream: Upstream, server: RedisServer | PostgresServer
) -> None:
    upstream.script = json_reply(OK)
    gateway = serve(shared(upstream, server))
    status(gateway)
    server.stop(signal.SIGKILL)
    told = [status(gateway, question(number)) for number in range(5)]
    assert any("store-unavailable" in each for each in told)
    assert "hit" in status(gateway, question(1))
    server.start()
    end_s, number = time.monotonic() + 20, 100
    while "store-unavailable" in status(gateway, question(number)):
        assert time.monotonic() < end_s
        time.sleep(0.1)
        number += 1
    assert gateway.stop() == 0


def test_a_store_that_hangs_costs_nobody_an_answer(
    serve: Start, upstream: Upstream, server: RedisServer | PostgresServer
) -> None:
    upstream.script = json_reply(OK)
    gateway = serve(shared(upstream, server))
    status(gateway)
    server.stop(signal.SIGSTOP)
    assert any("store-unavailable" in status(gateway, question(number)) for number in range(5))
    server.stop(signal.SIGCONT)
    assert gateway.stop() == 0
