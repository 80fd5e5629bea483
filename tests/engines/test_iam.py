"""The exchange of a key for tokens, against a token endpoint of our own."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from asks import OK, all_of, ask

from conftest import Upstream, json_reply
from stepwell.config import HttpEngine
from stepwell.engines.http import Http
from stepwell.engines.iam import Iam
from stepwell.errors import EngineUnavailable


async def test_iam_exchanges_the_key_once_and_renews_ahead_of_time(upstream: Upstream) -> None:
    def granted(name: str, seconds: float) -> Any:
        return json_reply(json.dumps({"access_token": name, "expires_in": seconds}).encode())

    upstream.script = granted("one", 1.0)
    iam = Iam(f"http://127.0.0.1:{upstream.port}/identity/token", "key+/1")
    assert await asyncio.gather(*(iam.token() for _ in range(10))) == ["one"] * 10
    assert len(upstream.requests) == 1
    head, body = upstream.requests[0]
    assert head.startswith(b"POST /identity/token ")
    assert body == b"grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=key%2B%2F1"
    upstream.script = granted("two", 60.0)
    await asyncio.sleep(0.85)
    assert await iam.token() == "one", "the old token serves while the new one is fetched"
    await asyncio.sleep(0.1)
    assert await iam.token() == "two"
    assert len(upstream.requests) == 2
    await iam.close()


async def test_iam_that_fails(upstream: Upstream) -> None:
    upstream.script = json_reply(b'{"access_token":"one","expires_in":1.0}')
    iam = Iam(f"http://127.0.0.1:{upstream.port}/identity/token", "key")
    await iam.token()
    upstream.script = json_reply(b"{}", "500 Oh")
    await asyncio.sleep(0.85)
    for _ in range(20):
        assert await iam.token() == "one"
        await asyncio.sleep(0.001)
    assert len(upstream.requests) == 2, "one failed renewal, and no storm of them"
    await asyncio.sleep(0.3)
    with pytest.raises(EngineUnavailable, match=r"no token \(status 500\)"):
        await iam.token()
    upstream.script = json_reply(b'{"errorMessage":"Provided API key could not be found."}', "400 Bad Request")
    with pytest.raises(EngineUnavailable, match="check api_key_env"):
        await iam.token()
    upstream.script = json_reply(b'{"token":1}')
    with pytest.raises(EngineUnavailable, match="cannot be read"):
        await iam.token()
    await iam.close()


async def test_a_token_may_say_when_it_ends_instead_of_how_long_it_lasts(upstream: Upstream) -> None:
    upstream.script = json_reply(json.dumps({"access_token": "one", "expiration": time.time() + 1000}).encode())
    iam = Iam(f"http://127.0.0.1:{upstream.port}/identity/token", "key")
    assert await iam.token() == "one"
    assert 990 < iam.ends_at_s - time.monotonic() <= 1000
    await iam.close()


async def test_an_engine_proves_who_it_is_with_the_token(upstream: Upstream) -> None:
    upstream.script = json_reply(b'{"access_token":"tok-1","expires_in":60}')
    iam = Iam(f"http://127.0.0.1:{upstream.port}/identity/token", "key")
    await iam.token()
    upstream.script = json_reply(OK)
    up = Http("up", HttpEngine(url=upstream.url), iam.token)
    assert (await all_of(up, ask()))[0].data == OK
    assert b"\r\nAuthorization: Bearer tok-1\r\n" in upstream.requests[-1][0]
    await iam.close()
