"""Playing over real sockets: what is answered is noted, what breaks is counted and said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from stepwell.demo.client import Broken, Connection, Reply, deltas, text_of
from stepwell.demo.play import NUM_IN_FLIGHT, Place, Played, all_played
from stepwell.demo.traffic import Ask

JSON = b'{"choices":[{"message":{"content":"A pub."}}]}'
EVENTS = (
    b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"A "}}]}\n\ndata: {"choices":[{"delta":{"content":"pub."}}]}\n\n'
    b'data: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n'
)
Answer = Callable[[bytes], Awaitable[bytes]]


def whole(body: bytes, *, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*pieces: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[int]:
    """Serve raw bytes on a port; b"" hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                reply = await answer(await reader.readexactly(length))
                writer.write(reply)
                if not reply.endswith((b"}", b"0\r\n\r\n")):
                    break
        except asyncio.IncompleteReadError:
            pass  # the caller is done
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def always(reply: bytes) -> Answer:
    async def answer(_: bytes) -> bytes:
        return reply

    return answer


async def asked(reply: bytes) -> Reply:
    async with server(always(reply)) as port, Connection("127.0.0.1", port) as connection:
        return await connection.ask("/v1/chat/completions", b"{}", key="k")


async def test_a_json_reply_is_read() -> None:
    reply = await asked(whole(JSON, more="Stepwell-Step: cache\r\n"))
    assert text_of(reply) == "A pub."
    assert reply.headers["stepwell-step"] == "cache"
    assert 0 < reply.first_s <= reply.seconds


async def test_a_streamed_reply_is_put_together() -> None:
    reply = await asked(chunked(EVENTS[:30], EVENTS[30:]))
    assert text_of(reply) == "A pub."


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (whole(b'{"error":{"message":"no key"}}', status="401 Unauthorized"), "HTTP 401.*no key"),
        (whole(b'{"object":"list"}'), "not a chat completion"),
        (chunked(EVENTS.removesuffix(b"data: [DONE]\n\n")), "broke off"),
        (chunked(b'data: {"error":{"message":"died"}}\n\n'), "broke off.*died"),
    ],
)
async def test_a_reply_that_is_none_says_why(reply: bytes, what: str) -> None:
    got = await asked(reply)
    with pytest.raises(Broken, match=f"(?s){what}"):
        text_of(got)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", chunked(EVENTS)[:-40]])
async def test_a_cut_connection_is_said(reply: bytes) -> None:
    with pytest.raises(Broken, match="ended in the middle"):
        await asked(reply)


@pytest.mark.parametrize(
    "reply", [b"nonsense\r\n\r\n", whole(b"").replace(b": 0", b": many"), chunked()[:-5] + b"z\r\n"]
)
async def test_what_is_not_http_is_said(reply: bytes) -> None:
    with pytest.raises(Broken, match="not HTTP"):
        await asked(reply)


def test_an_empty_stream_is_broken() -> None:
    with pytest.raises(Broken):
        deltas(b"")


def asks(num: int) -> list[Ask]:
    return [Ask(f"name[Venue {index}]", "guide-web", "reader-1", stream=False) for index in range(num)]


async def test_so_many_are_in_flight_and_come_back_in_order() -> None:
    now = most = 0

    async def answer(body: bytes) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        name = body.partition(b"Venue ")[2].partition(b"]")[0]
        return whole(JSON.replace(b"A pub", b"Venue " + name))

    heard: list[Played] = []
    async with server(answer) as port:
        played = await all_played(asks(400), Place("127.0.0.1", port, {"guide-web": "k"}), heard.append)
    assert most == NUM_IN_FLIGHT
    assert [one.text for one in played] == [f"Venue {index}." for index in range(400)]
    assert len(heard) == 400


async def test_what_breaks_is_noted_and_the_rest_goes_on() -> None:
    count = 0

    async def answer(_: bytes) -> bytes:
        nonlocal count
        count += 1
        return b"" if count % 3 == 0 else whole(JSON)

    async with server(answer) as port:
        played = await all_played(asks(90), Place("127.0.0.1", port, {"guide-web": "k"}), lambda _: None)
    assert sum(bool(one.error) for one in played) == 30
    assert all(one.text == "A pub." for one in played if not one.error)


async def test_nobody_there_is_an_error_a_request() -> None:
    async with server(always(b"")) as port:
        pass
    played = await all_played(asks(3), Place("127.0.0.1", port, {"guide-web": "k"}), lambda _: None)
    assert all("Connect call failed" in one.error for one in played)
