"""The `http` engine against servers that misbehave in every way a server can."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from asks import OK, STREAM, after, all_of, ask, engine, event, raw

from conftest import Upstream, event_reply, json_reply
from stepwell.config import HttpEngine, ScriptedEngine
from stepwell.engines import openai as wire
from stepwell.engines.fallback import start
from stepwell.engines.http import Http, seconds_of
from stepwell.engines.scripted import Scripted
from stepwell.errors import ConfigError, EngineBadReply, EngineError, EngineRefusal, EngineTimeout, EngineUnavailable
from stepwell.types import Chunk, Usage


async def test_json_is_one_chunk_with_its_usage(upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    assert await all_of(engine(upstream.url), ask()) == [Chunk(OK, Usage(5, 2), last=True)]


async def test_a_stream_is_passed_on_event_by_event_usage_and_end_apart(upstream: Upstream) -> None:
    upstream.script = event_reply(*STREAM, gap_s=0.01)
    told = await all_of(engine(upstream.url), ask(stream=True))
    assert [chunk.data for chunk in told] == STREAM
    assert told[2].usage == Usage(5, 2)
    assert [chunk.last for chunk in told] == [False, False, False, True]


async def test_connections_are_used_again_and_limited(upstream: Upstream) -> None:
    async def slow(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        await json_reply(OK)(head, body, writer)  # type: ignore[misc]

    upstream.script = slow
    up = engine(upstream.url, max_connections=3)
    told = await asyncio.gather(*(anext(up.generate(ask())) for _ in range(30)))
    assert [chunk.data for chunk in told] == [OK] * 30
    assert upstream.num_connections == 3
    await up.close()


async def test_a_kept_connection_that_the_server_closed_is_no_failure(upstream: Upstream) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(OK), OK)
    upstream.script = raw(whole)
    up = engine(upstream.url)
    for _ in range(3):
        assert (await anext(up.generate(ask()))).data == OK
    await up.close()


@pytest.mark.parametrize(
    ("pieces", "error", "says"),
    [
        ([], EngineUnavailable, "without a reply"),
        ([b"HTTP/1.1 2"], EngineBadReply, "mid-reply"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"], EngineBadReply, "mid-reply"),
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], EngineBadReply, "not an HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"], EngineBadReply, "not the JSON"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"], EngineBadReply, "not the JSON"),
        ([b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"error":{"code":500}}'], EngineBadReply, "with status 200"),
        ([b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"], EngineRefusal, "status 302"),
    ],
)
async def test_replies_that_are_none(
    upstream: Upstream, pieces: list[bytes], error: type[EngineError], says: str
) -> None:
    upstream.script = raw(*pieces)
    with pytest.raises(error, match=says) as caught:
        await all_of(engine(upstream.url), ask())
    assert caught.value.engine == "up"


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OK) + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(OK), OK),
        b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OK) + OK,
    ],
)
async def test_replies_in_every_form_split_anywhere(upstream: Upstream, reply: bytes) -> None:
    for at in range(1, len(reply), 7):
        upstream.script = raw(reply[:at], reply[at:], gap_s=0.0005)
        assert (await all_of(engine(upstream.url), ask()))[0].data == OK


async def test_time_limits_say_which(upstream: Upstream) -> None:
    upstream.script = raw(b"", gap_s=5)
    with pytest.raises(EngineTimeout, match=r"no byte within 0\.2 s"):
        await all_of(engine(upstream.url, first_byte_timeout_s=0.2), ask())
    upstream.script = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", gap_s=5)
    with pytest.raises(EngineTimeout, match=r"not complete within 0\.2 s"):
        await all_of(engine(upstream.url, total_timeout_s=0.2), ask())
    upstream.script = event_reply(event("De"), gap_s=5)
    chunks = engine(upstream.url, total_timeout_s=0.2).generate(ask(stream=True))
    assert (await anext(chunks)).data == event("De")
    with pytest.raises(EngineTimeout, match="not complete"):
        await anext(chunks)


async def test_a_head_alone_is_no_first_byte(upstream: Upstream) -> None:
    upstream.script = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", gap_s=5)
    for stream in (False, True):
        with pytest.raises(EngineTimeout, match=r"no byte within 0\.2 s"):
            await all_of(engine(upstream.url, first_byte_timeout_s=0.2), ask(stream=stream))


async def test_connecting_that_hangs_is_tried_again_and_an_answer_that_hangs_is_not(upstream: Upstream) -> None:
    tls = upstream.url.replace("http:", "https:")  # whose handshake is never answered
    upstream.script = raw(b"", gap_s=5)
    with pytest.raises(EngineTimeout, match=r"no connection within 0\.1 s"):
        await all_of(engine(tls, connect_timeout_s=0.1, retries=2), ask())
    assert upstream.num_connections == 3
    with pytest.raises(EngineTimeout, match="no byte"):
        await all_of(engine(upstream.url, first_byte_timeout_s=0.2, retries=2), ask())
    assert len(upstream.requests) == 1


async def test_nobody_listens() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(EngineUnavailable, match="cannot connect"):
        await all_of(engine(f"http://127.0.0.1:{port}/v1"), ask())
    with pytest.raises(EngineUnavailable, match="cannot connect"):
        await all_of(engine("http://no-such-host.invalid/v1"), ask())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_what_may_pass_is_tried_again(upstream: Upstream, status: int) -> None:
    upstream.script = after(2, json_reply(b"{}", f"{status} Oh"), json_reply(OK))
    assert (await all_of(engine(upstream.url, retries=2), ask()))[0].data == OK
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_refusal_is_final_and_passed_on_as_it_is(upstream: Upstream, status: int) -> None:
    said = b'{"error":{"message":"no","code":"mine"}}'
    upstream.script = json_reply(said, f"{status} No")
    with pytest.raises(EngineRefusal) as caught:
        await all_of(engine(upstream.url, retries=5), ask())
    assert (caught.value.status, caught.value.body) == (status, said)
    assert len(upstream.requests) == 1


async def test_our_own_key_being_refused_is_not_the_callers_fault(upstream: Upstream) -> None:
    upstream.script = json_reply(b'{"error":{"message":"bad key sk-secret"}}', "401 Unauthorized")
    with pytest.raises(EngineRefusal, match="check key_env") as caught:
        await all_of(engine(upstream.url, retries=3), ask())
    assert (caught.value.status, caught.value.body) == (502, b"")
    assert len(upstream.requests) == 1


async def test_retry_after_is_honoured_or_passed_on(upstream: Upstream) -> None:
    upstream.script = after(1, json_reply(b"{}", "429 Slow", more=b"Retry-After: 0\r\n"), json_reply(OK))
    assert (await all_of(engine(upstream.url, retries=1, retry_base_s=60.0), ask()))[0].data == OK
    upstream.script = json_reply(b"{}", "429 Slow", more=b"Retry-After: 30\r\n")
    with pytest.raises(EngineRefusal) as caught:
        await all_of(engine(upstream.url, retries=3), ask())
    assert caught.value.retry_after_s == 30


def test_retry_after_is_seconds_or_a_date() -> None:
    assert seconds_of(b"12") == 12
    assert seconds_of(b"Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds_of(b"soon") is None
    assert seconds_of(None) is None
    assert [seconds_of(odd) for odd in (b"inf", b"1e999", b"nan", b"-5", b"\xff")] == [None, None, None, 0, None]


async def test_nothing_is_tried_again_after_the_first_chunk(upstream: Upstream) -> None:
    upstream.script = event_reply(event("De"), gap_s=0.01, ends=False)
    chunks = engine(upstream.url, retries=5).generate(ask(stream=True))
    assert (await anext(chunks)).data == event("De")
    with pytest.raises(EngineBadReply, match="mid-reply"):
        await anext(chunks)
    assert len(upstream.requests) == 1


async def test_a_stream_without_its_end_mark_is_whole_only_where_a_choice_said_why_it_ends(upstream: Upstream) -> None:
    upstream.script = event_reply(event("De"))
    with pytest.raises(EngineBadReply, match="end mark"):
        await all_of(engine(upstream.url), ask(stream=True))
    last = event("ep").replace(b'"index": 0', b'"index": 0, "finish_reason": "stop"')
    upstream.script = event_reply(event("De"), last)
    told = await all_of(engine(upstream.url), ask(stream=True))
    assert told[-1] == Chunk(wire.DONE, last=True)
    with pytest.raises(EngineBadReply, match="end mark"):
        await all_of(engine(upstream.url), ask(stream=True, n=2))
    upstream.script = event_reply(last.replace(b'"stop"', b'""'))
    with pytest.raises(EngineBadReply, match="end mark"):
        await all_of(engine(upstream.url), ask(stream=True))


async def test_an_error_event_is_an_error(upstream: Upstream) -> None:
    upstream.script = event_reply(event("De"), b'data: {"error":{"message":"out of memory"}}\n\n', gap_s=0.01)
    with pytest.raises(EngineBadReply, match="out of memory"):
        await all_of(engine(upstream.url), ask(stream=True))


async def test_pings_before_the_first_event_are_no_answer(upstream: Upstream) -> None:
    upstream.script = after(
        1, event_reply(b": ping\n\n", gap_s=0.01, ends=False), event_reply(b": ping\n\n", *STREAM, gap_s=0.01)
    )
    told = await all_of(engine(upstream.url, retries=1), ask(stream=True))
    assert [chunk.data for chunk in told] == STREAM


async def test_closing_early_hangs_up(upstream: Upstream) -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def endless(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(event("x")), event("x")))
                await writer.drain()
                await asyncio.sleep(0.005)
        finally:
            loop.call_soon_threadsafe(gone.set)

    upstream.script = endless
    up = engine(upstream.url)
    chunks = up.generate(ask(stream=True))
    await anext(chunks)
    await chunks.aclose()
    await asyncio.wait_for(gone.wait(), 5)
    assert up.pool.wires == set()
    await up.close()


async def test_a_cancelled_request_hangs_up_too(upstream: Upstream) -> None:
    upstream.script = raw(b"", gap_s=10)
    up = engine(upstream.url)
    asking = asyncio.ensure_future(anext(up.generate(ask())))
    await asyncio.sleep(0.1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0.05)
    assert up.pool.wires == set()
    await up.close()


async def test_a_slow_reader_stops_the_server_from_sending(upstream: Upstream) -> None:
    sent = [0]

    async def flood(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        told = event("x" * 100_000)
        for _ in range(400):
            writer.write(b"%x\r\n%b\r\n" % (len(told), told))
            await writer.drain()
            sent[0] += 1

    upstream.script = flood
    up = engine(upstream.url)
    chunks = up.generate(ask(stream=True))
    await anext(chunks)
    await asyncio.sleep(0.5)
    assert sent[0] < 300, "40 MB must not pile up here"
    await chunks.aclose()
    await up.close()


@pytest.mark.parametrize("gap_s", [0.0, 0.002])
async def test_what_a_direct_reader_leaves_is_iterated_in_order(upstream: Upstream, gap_s: float) -> None:
    told = [event(f"word {number}") for number in range(60)]
    framed = [b"%x\r\n%b\r\n" % (len(each), each) for each in (*told, *STREAM[2:])]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.script = raw(head, *framed, b"0\r\n\r\n", gap_s=gap_s)
    up = engine(upstream.url)
    chunks = up.generate(ask(stream=True))
    heard = [(await anext(chunks)).data]
    num_taken = 0

    def take(words: bytes) -> bool:
        nonlocal num_taken
        if len(heard) % 3 == 0:
            return False
        heard.append(words)
        num_taken += 1
        return True

    chunks.direct(take)
    async for chunk in chunks:
        heard.append(chunk.data)  # noqa: PERF401 - `take` looks at it meanwhile
    assert b"".join(heard) == b"".join(told) + b"".join(STREAM[2:])
    if gap_s:
        assert num_taken > 0, "words that come alone are taken at once"
    await up.close()


async def test_the_breaker_leaves_a_dead_server_alone(upstream: Upstream) -> None:
    upstream.script = json_reply(b"{}", "500 Oh")
    up = engine(upstream.url, breaker_failures=3, breaker_open_s=0.3)
    for _ in range(3):
        with pytest.raises(EngineRefusal):
            await anext(up.generate(ask()))
    with pytest.raises(EngineUnavailable, match="left alone"):
        await anext(up.generate(ask()))
    assert len(upstream.requests) == 3
    upstream.script = json_reply(OK)
    await asyncio.sleep(0.35)
    assert (await anext(up.generate(ask()))).data == OK
    await up.close()


async def test_a_breaker_that_opens_between_retries_does_not_hide_why(upstream: Upstream) -> None:
    upstream.script = json_reply(b"{}", "500 Oh")
    with pytest.raises(EngineRefusal, match="status 500"):
        await all_of(engine(upstream.url, retries=5, breaker_failures=2), ask())
    assert len(upstream.requests) == 2


async def test_a_half_open_breaker_whose_probe_is_cancelled_lets_another_pass(upstream: Upstream) -> None:
    upstream.script = json_reply(b"{}", "500 Oh")
    up = engine(upstream.url, breaker_failures=1, breaker_open_s=0.1)
    with pytest.raises(EngineRefusal):
        await anext(up.generate(ask()))
    await asyncio.sleep(0.15)
    upstream.script = raw(b"", gap_s=10)
    probe = asyncio.ensure_future(anext(up.generate(ask())))
    await asyncio.sleep(0.05)
    with pytest.raises(EngineUnavailable, match="left alone"):
        await anext(up.generate(ask()))
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    upstream.script = json_reply(OK)
    assert (await anext(up.generate(ask()))).data == OK
    await up.close()


async def test_the_next_engine_is_asked_and_all_reasons_are_told(upstream: Upstream) -> None:
    upstream.script = json_reply(b"{}", "503 Busy")
    dead, spare = engine(upstream.url), Scripted("spare", ScriptedEngine())
    opened = await start([dead, spare], ask())
    assert opened.engine == "spare"
    assert opened.first.last
    with pytest.raises(EngineError) as caught:
        await start([dead, Scripted("broken", ScriptedEngine(fail="refuse"))], ask())
    assert "503" in str(caught.value)
    assert "broken" in str(caught.value)
    upstream.script = json_reply(b"{}", "400 No")
    with pytest.raises(EngineRefusal, match="400"):
        await start([dead, spare], ask())
    await dead.close()


async def test_keys_and_headers_are_sent(upstream: Upstream) -> None:
    async def key() -> str:
        return "sk-1"

    upstream.script = json_reply(OK)
    up = Http("up", HttpEngine(url=upstream.url + "/", headers={"X-Team": "wells"}), key)
    await all_of(up, ask())
    head = upstream.requests[-1][0]
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer sk-1\r\n" in head
    assert b"\r\nX-Team: wells\r\n" in head


async def test_what_fits_no_header_is_never_sent(upstream: Upstream) -> None:
    async def key() -> str:
        return "sk-1\r\nX-Evil: 1"

    with pytest.raises(EngineUnavailable, match="check key_env") as caught:
        await all_of(Http("up", HttpEngine(url=upstream.url, retries=0), key), ask())
    assert "sk-1" not in str(caught.value)
    assert upstream.requests == []
    for value in ("a\r\nX-Evil: 1", "caf\u20ac"):
        with pytest.raises(ConfigError, match=r"engines\.up\.headers\.X-Team"):
            engine(upstream.url, headers={"X-Team": value})


@pytest.mark.parametrize("url", ["http://", "http://a:99999/v1", "http://a:b/v1", "http://a b/v1", "http://a\n/v1"])
def test_a_url_that_is_none_is_said_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"engines\.up\.url: .*is not a URL"):
        engine(url)


async def test_tls_is_verified(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    await asyncio.to_thread(subprocess.run, [*made, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    upstream.script = json_reply(OK)
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
    with pytest.raises(EngineUnavailable, match="certificate"):
        await all_of(engine(url), ask())
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert (await all_of(engine(url), ask()))[0].data == OK
    server.close()
