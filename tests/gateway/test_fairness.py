"""One principal cannot push out what others had answered: neither from memory nor from the store."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator

import pytest

from conftest import Gateway, Start

CONFIG = """
[server]
port = 0
[[keys]]
tenant = "acme"
env = "GOOD"
[[keys]]
tenant = "acme"
env = "BAD"
[engines.scripted]
type = "scripted"
[routes.well]
engines = ["scripted"]
price = "gpt-4o-mini"
"""
KEYS = {"GOOD": "good", "BAD": "bad"}


class Caller:
    """One principal on a connection of its own."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.connection, self.key = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10), key

    def hit(self, number: int) -> bool:
        """Ask a question; whether its answer was kept."""
        asked = {"model": "well", "messages": [{"role": "user", "content": f"Question {number}?"}], "temperature": 0}
        self.connection.request(
            "POST", "/v1/chat/completions", json.dumps(asked), {"Authorization": f"Bearer {self.key}"}
        )
        reply = self.connection.getresponse()
        reply.read()
        return "; hit" in str(reply.headers["Cache-Status"])


@pytest.fixture
def caller() -> Iterator[Callable[[Gateway, str], Caller]]:
    callers: list[Caller] = []

    def call(gateway: Gateway, key: str) -> Caller:
        callers.append(Caller(gateway, key))
        return callers[-1]

    yield call
    for each in callers:
        each.connection.close()


Call = Callable[[Gateway, str], Caller]


@pytest.mark.parametrize("share", ["principal", "tenant"])
def test_a_flood_leaves_the_memory_of_others_alone(serve: Start, caller: Call, share: str) -> None:
    gateway = serve(f'{CONFIG}share = "{share}"\n[cache]\npath = ""\nmemory_bytes = 65_536\n', **KEYS)
    good, bad = caller(gateway, "good"), caller(gateway, "bad")
    for number in range(5):
        good.hit(number)
    for number in range(1000, 1300):
        bad.hit(number)
        bad.hit(number)
    assert all(good.hit(number) for number in range(5))
    assert sum(bad.hit(number) for number in range(1200, 1300)) < 50, "the memory is full"


def test_a_flood_leaves_the_store_to_others(serve: Start, caller: Call) -> None:
    gateway = serve(f"{CONFIG}[cache]\nfile_bytes = 65_536\n", **KEYS)
    good, bad = caller(gateway, "good"), caller(gateway, "bad")
    for number in range(200):
        bad.hit(number)
    kept = [bad.hit(number) for number in range(200)]
    assert kept == sorted(kept, reverse=True), "the first are kept, then it had its part"
    assert 10 < sum(kept) < 100
    good.hit(1000)
    assert good.hit(1000)


def test_whoever_is_alone_may_fill_everything(serve: Start, caller: Call) -> None:
    alone = CONFIG.replace('[[keys]]\ntenant = "acme"\nenv = "BAD"\n', "")
    good = caller(serve(f"{alone}[cache]\nfile_bytes = 65_536\n", **KEYS), "good")
    for number in range(200):
        good.hit(number)
    assert all(good.hit(number) for number in range(200))
