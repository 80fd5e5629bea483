"""The `http` engine against servers that misbehave in every way a server can."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Upstream, event_reply, json_reply
from stepwell.config import HttpEngine, ScriptedEngine
from stepwell.engines import openai as wire
from stepwell.engines.breaker import Breaker
from stepwell.engines.fallback import start
from stepwell.engines.http import Http, seconds_of
from stepwell.engines.iam import Iam
from stepwell.engines.scripted import Scripted
from stepwell.errors import EngineBadReply, EngineError, EngineRefusal, EngineTimeout, EngineUnavailable
from stepwell.gateway import openai
from stepwell.types import Caller, Chunk, Request, Usage

OK = json.dumps(
    {"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
).encode()


def ask(**fields: Any) -> Request:
    body = {"model": "well", "messages": [{"role": "user", "content": "hi"}], **fields}
    return openai.parse("chat", json.dumps(body).encode(), id="1", caller=Caller("t", "p"), started_s=0.0)


def engine(url: str, **more: Any) -> Http:
    return Http("up", HttpEngine(url=url, **{"retries": 0, "retry_base_s": 0.001, **more}))


def event(text: str) -> bytes:
    told = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


STREAM = [
    event("De"),
    event("ep."),
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
    wire.DONE,
]


async def all_of(up: Http | Scripted, request: Request) -> list[Chunk]:
    try:
        return [chunk async for chunk in up.generate(request)]
    finally:
        await up.close()


def raw(*pieces: bytes, gap_s: float = 0.0, close: bool = True) -> Any:
    async def script(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(gap_s)
        if close:
            writer.close()

    return script


def after(failures: int, bad: Any, good: Any) -> Any:
    left = [failures]

    async def script(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        left[0] -= 1
        await (bad if left[0] >= 0 else good)(head, body, writer)

    return script


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
    assert up.pool.free == []
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


@given(st.lists(st.sampled_from(["ok", "bad", "wait"]), max_size=60))
def test_the_breaker_opens_after_so_many_failures_in_a_row_and_lets_one_probe_pass(events: list[str]) -> None:
    now = [0.0]
    breaker = Breaker(3, 10.0, lambda: now[0])
    in_a_row, open_until = 0, -1.0
    for each in events:
        if each == "wait":
            now[0] += 4
            continue
        passes = breaker.wait_s() == 0
        assert passes == (now[0] >= open_until)
        if not passes:
            continue
        if each == "ok":
            breaker.succeeded()
            in_a_row, open_until = 0, -1.0
        else:
            breaker.failed()
            in_a_row += 1
            if in_a_row >= 3:
                open_until = now[0] + 10


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


async def test_the_body_goes_on_byte_for_byte(upstream: Upstream) -> None:
    upstream.script = json_reply(OK)
    odd = b'{"model":"well", "messages":[{"role":"user","content":"caf\\u00e9 \\ud83d\\ude00"}],\n "seed":1e2,"x":[1.0,{"a":null}],"temperature":0.10}'
    request = openai.parse("chat", odd, id="1", caller=Caller("t", "p"), started_s=0.0)
    await all_of(engine(upstream.url), request)
    assert upstream.requests[-1][1] == odd
    await all_of(engine(upstream.url, model="theirs"), request)
    sent = upstream.requests[-1][1]
    for part in (
        b'"model":"theirs"',
        b'"seed":1e2',
        b'"x":[1.0,{"a":null}]',
        b'"temperature":0.10',
        b"caf\\u00e9 \\ud83d\\ude00",
    ):
        assert part in sent


async def test_a_stream_is_told_to_count_unless_the_caller_said_so(upstream: Upstream) -> None:
    upstream.script = event_reply(*STREAM)
    await all_of(engine(upstream.url), ask(stream=True))
    assert json.loads(upstream.requests[-1][1])["stream_options"] == {"include_usage": True}
    asked = ask(stream=True, stream_options={"include_usage": True, "more": 1})
    await all_of(engine(upstream.url), asked)
    assert upstream.requests[-1][1] == asked.body


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


@given(st.data())
def test_events_split_anywhere_are_the_same_events(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=8), max_size=6))
    ends = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    whole = b"".join([event(text).rstrip() + ends for text in texts] + [part.rstrip() + ends for part in STREAM[2:]])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    events = wire.Events()
    told = [
        chunk
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for chunk in events.feed(whole[start:end])
    ]
    assert b"".join(chunk.data for chunk in told) == whole.replace(b"\r", b"")
    assert events.ended
    assert told[-1].last
    assert [chunk.usage for chunk in told if chunk.usage] == [Usage(5, 2)]


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
    assert await iam.token() == "one"
    await asyncio.sleep(0.3)
    with pytest.raises(EngineUnavailable, match="check api_key_env"):
        await iam.token()
    await iam.close()


@pytest.mark.parametrize("fail", ["refuse", "limit", "error", "die"])
async def test_scripted_failures(fail: Any) -> None:
    for stream in (False, True):
        up = Scripted("s", ScriptedEngine(fail=fail, fail_first=1))
        with pytest.raises(EngineError):
            await all_of(up, ask(stream=stream))
        assert (await all_of(up, ask(stream=stream)))[-1].last
