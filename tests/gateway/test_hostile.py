"""Callers who are wrong, slow, hostile or gone: raw bytes on a socket, and what comes back."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing

import pytest

from conftest import SCRIPTED, Gateway, Start

ASK = b'{"model":"well","messages":[{"role":"user","content":"hi"}],"temperature":0}'


def post(body: bytes, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def talk(gateway: Gateway, data: bytes, *, wait_s: float = 5.0) -> bytes:
    """Send bytes, read until the gateway closes or `wait_s` pass without a byte."""
    with closing(socket.create_connection(("127.0.0.1", gateway.port), 5)) as sock:
        sock.sendall(data)
        return read(sock, wait_s)


def read(sock: socket.socket, wait_s: float = 5.0) -> bytes:
    sock.settimeout(wait_s)
    told = b""
    try:
        while piece := sock.recv(65536):
            told += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return told


def status(told: bytes) -> int:
    return int(told.split(b" ", 2)[1])


def error(told: bytes) -> dict[str, object]:
    error: dict[str, object] = json.loads(told.partition(b"\r\n\r\n")[2])["error"]
    return error


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"", None, "not JSON"),
        (b"{", None, "not JSON"),
        (b"\xff\xfe", None, "not JSON"),
        (b"[1]", None, "JSON object"),
        (b"[" * 100_000, None, "nested"),
        (b"{}", "model", "name the model"),
        (b'{"model":7,"messages":[]}', "model", "string"),
        (b'{"model":"well"}', "messages", "at least one"),
        (b'{"model":"well","messages":[]}', "messages", "at least one"),
        (b'{"model":"well","messages":"hi"}', "messages", "list"),
        (b'{"model":"well","messages":[3]}', "messages[0]", "object"),
        (b'{"model":"well","messages":[{"role":"king","content":"x"}]}', "messages[0].role", "one of"),
        (b'{"model":"well","messages":[{"role":["user"],"content":"x"}]}', "messages[0].role", "one of"),
        (b'{"model":"well","messages":[{"role":"user","content":3}]}', "messages[0].content", "string"),
        (b'{"model":"well","messages":[{"role":"user","content":"x"}],"temperature":"hot"}', "temperature", "number"),
        (b'{"model":"well","messages":[{"role":"user","content":"x"}],"temperature":true}', "temperature", "number"),
        (
            b'{"model":"well","messages":[{"role":"user","content":"x"}],"top_p":1' + b"0" * 400 + b"}",
            "top_p",
            "too large a number",
        ),
        (b'{"model":"well","messages":[{"role":"user","content":"x"}],"stream":"yes"}', "stream", "true or false"),
        (b'{"model":"well","messages":[{"role":"user","content":"x"}],"stream_options":1}', "stream_options", "object"),
    ],
)
def test_bad_bodies(serve: Start, body: bytes, param: str | None, says: str) -> None:
    told = talk(serve(), post(body, "Connection: close"))
    assert status(told) == 400
    assert error(told)["param"] == param
    assert says in str(error(told)["message"])
    assert error(told)["type"] == "invalid_request_error"


def test_unknown_model_path_and_method(serve: Start) -> None:
    gateway = serve()
    told = talk(gateway, post(ASK.replace(b'"well"', b'"ocean"'), "Connection: close"))
    assert (status(told), error(told)["code"], error(told)["param"]) == (404, "model_not_found", "model")
    told = talk(gateway, post(ASK, "Connection: close", path="/v2/nowhere"))
    assert (status(told), error(told)["code"]) == (404, "not_found")
    told = talk(gateway, b"GET /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status(told) == 405
    assert b"\r\nAllow: POST\r\n" in told
    told = talk(gateway, b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status(told) == 405


def test_ten_megabytes_are_refused_and_the_refusal_can_be_read(serve: Start) -> None:
    gateway = serve()
    big = ASK.replace(b'"hi"', b'"' + b"x" * 10_000_000 + b'"')
    told = talk(gateway, post(big))
    assert (status(told), error(told)["code"]) == (413, "request_too_large")
    assert b"Connection: close" in told


def test_chunked_body_is_read_and_limited(serve: Start) -> None:
    gateway = serve(SCRIPTED.replace("port = 0", "port = 0\nmax_body_bytes = 1000"))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (ASK[:10], ASK[10:11], ASK[11:]))
    assert status(talk(gateway, head + pieces + b"0\r\n\r\n")) == 200
    assert status(talk(gateway, head + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n")) == 413


@pytest.mark.parametrize(
    "data",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nEvil\0: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello?\r\n\r\n",
    ],
)
def test_broken_http_is_refused_and_the_connection_closed(serve: Start, data: bytes) -> None:
    told = talk(serve(), data, wait_s=10)
    assert status(told) == 400
    assert told.count(b"HTTP/1.1 400") == 1
    assert b"Connection: close" in told


def test_head_that_never_ends(serve: Start) -> None:
    told = talk(serve(), b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 100_000)
    assert status(told) == 431


def test_a_body_byte_by_byte(serve: Start) -> None:
    gateway = serve()
    with closing(socket.create_connection(("127.0.0.1", gateway.port), 5)) as sock:
        for at in range(0, len(request := post(ASK, "Connection: close")), 7):
            sock.sendall(request[at : at + 7])
            time.sleep(0.001)
        assert status(read(sock)) == 200


def test_expect_continue(serve: Start) -> None:
    gateway = serve()
    with closing(socket.create_connection(("127.0.0.1", gateway.port), 5)) as sock:
        head, _, body = post(ASK, "Expect: 100-continue", "Connection: close").partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert status(read(sock)) == 200


def test_pipelined_requests_are_answered_in_order(serve: Start) -> None:
    slow = ASK.replace(b'"hi"', b'"first"')
    asks = [post(slow), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", post(b"{"), post(ASK, "Connection: close")]
    gateway = serve(SCRIPTED.replace('reply = "', 'delay_s = 0.2\nreply = "'))
    told = talk(gateway, b"".join(asks))
    assert [int(part[:3]) for part in told.split(b"HTTP/1.1 ")[1:]] == [200, 200, 400, 200]


def test_a_request_that_does_not_arrive_in_time(serve: Start) -> None:
    gateway = serve(SCRIPTED.replace("port = 0", "port = 0\nreceive_timeout_s = 0.5"))
    told = talk(gateway, post(ASK)[:-5], wait_s=10)
    assert status(told) == 408


def test_an_idle_connection_is_closed(serve: Start) -> None:
    gateway = serve(SCRIPTED.replace("port = 0", "port = 0\nidle_timeout_s = 0.5"))
    assert status(talk(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", wait_s=10)) == 200
    assert talk(gateway, b"", wait_s=10) == b""


def test_too_many_connections(serve: Start) -> None:
    gateway = serve(SCRIPTED.replace("port = 0", "port = 0\nmax_connections = 2"))
    held = [socket.create_connection(("127.0.0.1", gateway.port), 5) for _ in range(2)]
    time.sleep(0.1)
    assert status(talk(gateway, b"")) == 503
    for sock in held:
        sock.close()
    time.sleep(0.1)
    assert status(talk(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == 200


def test_http_1_0_streams_until_the_connection_closes(serve: Start) -> None:
    body = ASK.replace(b"}]", b'}],"stream":true').replace(b',"temperature":0', b"")
    told = talk(serve(), post(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert status(told) == 200
    assert b"chunked" not in told
    assert told.endswith(b"data: [DONE]\n\n")


def test_head_request_has_no_body(serve: Start) -> None:
    told = talk(serve(), b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status(told) == 200
    assert b"Content-Length: 3\r\n" in told
    assert told.endswith(b"\r\n\r\n")


def test_a_caller_who_reads_nothing_is_cut_off_and_does_not_fill_memory(serve: Start) -> None:
    words = "well " * 40_000
    config = SCRIPTED.replace("The well is deep.", words).replace("port = 0", "port = 0\nsend_timeout_s = 1.0")
    gateway = serve(config)
    with closing(socket.create_connection(("127.0.0.1", gateway.port), 5)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(post(ASK.replace(b"}]", b'}],"stream":true')))
        time.sleep(4)
        told = read(sock)
    assert b"[DONE]" not in told
    assert status(talk(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == 200
