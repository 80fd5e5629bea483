"""What happens when things die: engines, callers, the gateway itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import openai
import pytest
from test_hostile import post, status, talk

from conftest import SCRIPTED, Gateway, Start, Upstream, event_reply, forwarding, json_reply

ASK = b'{"model":"well","messages":[{"role":"user","content":"hi"}],"temperature":0}'
STREAM = ASK.replace(b"}]", b'}],"stream":true')
OK = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Deep."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
).encode()


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    told = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def ask(gateway: Gateway, body: bytes = ASK) -> bytes:
    return talk(gateway, post(body, "Connection: close"), wait_s=15)


def entries(gateway: Gateway) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(gateway.folder / "stepwell-data" / "ledger.db")) as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT * FROM entries ORDER BY at_s").fetchall()


def eventually(check: object, seconds: float = 5.0) -> None:
    end_s = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("wanted", [500, 502, 503, 429])
def test_a_server_in_trouble_is_asked_again_and_then_told_about(serve: Start, upstream: Upstream, wanted: int) -> None:
    upstream.script = json_reply(b'{"error":{"message":"busy","type":"x","param":null,"code":"busy"}}', f"{wanted} Oh")
    told = ask(serve(forwarding(upstream)))
    assert status(told) == wanted
    assert b'"code":"busy"' in told
    assert len(upstream.requests) == 3


def test_a_server_that_hangs_is_a_504(serve: Start, upstream: Upstream) -> None:
    async def hang(*_: object) -> None:
        await asyncio.sleep(30)

    upstream.script = hang
    told = ask(serve(forwarding(upstream, engine="first_byte_timeout_s = 0.3\nretries = 0")))
    assert status(told) == 504
    assert b"no byte within 0.3 s" in told


def test_no_server_at_all_is_a_502_in_openais_shape(serve: Start) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    config = SCRIPTED.replace(
        'type = "scripted"\nreply = "The well is deep."',
        f'type = "http"\nurl = "http://127.0.0.1:{port}/v1"\nretries = 0',
    )
    told = ask(serve(config))
    assert status(told) == 502
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "engine_unavailable"


def test_the_next_engine_answers_for_a_dead_one(serve: Start, upstream: Upstream) -> None:
    upstream.script = json_reply(b"{}", "500 Oh")
    config = forwarding(upstream, engine="retries = 0").replace('["up"]', '["up", "spare"]')
    gateway = serve(config + '\n[engines.spare]\ntype = "scripted"\n')
    assert status(told := ask(gateway)) == 200
    assert b"The well is deep." in told
    gateway.stop()
    assert [row["engine"] for row in entries(gateway)] == ["spare"]


def test_a_stream_cut_off_is_an_error_event_and_no_end(serve: Start, upstream: Upstream) -> None:
    upstream.script = event_reply(event("De"), event("ep"), gap_s=0.02, ends=False)
    gateway = serve(forwarding(upstream))
    told = ask(gateway, STREAM)
    assert b'"content": "ep"' in told
    assert b'data: {"error":' in told
    assert b"[DONE]" not in told
    assert not told.endswith(b"0\r\n\r\n")
    ask(gateway, STREAM)
    assert len(upstream.requests) == 2, "a broken stream must not be kept"
    gateway.stop()
    assert [row["complete"] for row in entries(gateway)] == [0, 0]


def test_a_caller_who_hangs_up_stops_the_engine_and_nothing_is_kept(serve: Start, upstream: Upstream) -> None:
    broken = threading.Event()

    async def endless(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                told = event("and on ")
                writer.write(b"%x\r\n%b\r\n" % (len(told), told))
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            broken.set()

    upstream.script = endless
    gateway = serve(forwarding(upstream))
    with closing(socket.create_connection(("127.0.0.1", gateway.port), 5)) as sock:
        sock.sendall(post(STREAM))
        assert b"and on" in sock.recv(4096)
    assert broken.wait(5), "the engine must be told to stop"
    gateway.stop()
    (row,) = entries(gateway)
    assert (row["complete"], row["status"], row["tokens_estimated"]) == (0, 499, 1)


def test_equal_questions_in_flight_are_asked_once(serve: Start, upstream: Upstream) -> None:
    async def slow(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        reply = event_reply(event("hi"), b"data: [DONE]\n\n") if b'"stream":true' in body else json_reply(OK)
        await reply(head, body, writer)  # type: ignore[misc]

    upstream.script = slow
    gateway = serve(forwarding(upstream))
    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda at: ask(gateway, STREAM if at % 2 else ASK), range(20)))
    assert [status(one) for one in told] == [200] * 20
    assert len(upstream.requests) == 1
    assert sum(b"fwd=miss; collapsed" in one for one in told) == 19


def test_equal_questions_share_the_error_and_a_leader_who_leaves_is_not_asked_for_again(
    serve: Start, upstream: Upstream
) -> None:
    async def slow(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        await json_reply(OK if b'"hi"' in body else b"{}", "200 OK" if b'"hi"' in body else "400 No")(
            head, body, writer
        )  # type: ignore[misc]

    upstream.script = slow
    gateway = serve(forwarding(upstream))
    other = ASK.replace(b'"hi"', b'"no"')
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: ask(gateway, other), range(8)))
    assert [status(one) for one in told] == [400] * 8
    assert len(upstream.requests) == 1
    leader = socket.create_connection(("127.0.0.1", gateway.port), 5)
    leader.sendall(post(ASK))
    time.sleep(0.1)
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(ask, gateway) for _ in range(4)]
        time.sleep(0.1)
        leader.close()
        assert [status(one.result()) for one in others] == [200] * 4
    assert len(upstream.requests) == 2


def test_sigterm_lets_those_in_flight_finish(serve: Start, upstream: Upstream) -> None:
    upstream.script = event_reply(*(event(f"w{at} ") for at in range(20)), b"data: [DONE]\n\n", gap_s=0.05)
    gateway = serve(forwarding(upstream))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, gateway, STREAM)
        eventually(lambda: upstream.requests)
        assert gateway.stop(signal.SIGTERM) == 0
        told = answer.result()
    assert b"w19" in told
    assert b"[DONE]" in told
    with pytest.raises(ConnectionRefusedError):
        ask(gateway)
    assert [row["complete"] for row in entries(gateway)] == [1]


def test_kill_9_leaves_an_intact_ledger_and_cache(serve: Start) -> None:
    gateway = serve()
    with openai.OpenAI(base_url=gateway.url, api_key="none") as ai:
        for at in range(50):
            ai.chat.completions.create(model="well", messages=[{"role": "user", "content": str(at)}], temperature=0)
        time.sleep(0.6)
        ai.chat.completions.create(model="well", messages=[{"role": "user", "content": "last"}], temperature=0)
        gateway.stop(signal.SIGKILL)
    for name in ("ledger.db", "cache.db"):
        with closing(sqlite3.connect(gateway.folder / "stepwell-data" / name)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(entries(gateway)) >= 50
    again = serve()
    told = ask(again, b'{"model":"well","messages":[{"role":"user","content":"7"}],"temperature":0}')
    assert b"Stepwell-Step: cache" in told


def test_a_corrupt_cache_file_is_begun_anew_and_said(serve: Start) -> None:
    gateway = serve()
    assert b"Stepwell-Step: large" in ask(gateway)
    gateway.stop()
    file = gateway.folder / "stepwell-data" / "cache.db"
    for tail in ("-wal", "-shm"):
        Path(f"{file}{tail}").unlink(missing_ok=True)
    file.write_bytes(b"rubbish" * 1000)
    again = serve()
    assert b"Stepwell-Step: large" in ask(again)
    assert b"Stepwell-Step: cache" in ask(again)
    assert "begun anew" in again.log
    assert (gateway.folder / "stepwell-data" / "cache.db.damaged").exists()


def test_two_gateways_share_one_cache_and_one_ledger(serve: Start) -> None:
    first, second = serve(), serve()
    assert b"Stepwell-Step: large" in ask(first)
    eventually(lambda: b"Stepwell-Step: cache" in ask(second))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: ask((first, second)[at % 2]), range(100)))
    first.stop()
    second.stop()
    assert len(entries(first)) >= 102
    assert len({row["id"] for row in entries(first)}) == len(entries(first))


def test_several_workers_answer_on_one_port_and_stop_together(serve: Start) -> None:
    gateway = serve(SCRIPTED.replace("port = 0", "port = 0\nworkers = 2"))
    eventually(lambda: len(children(gateway.process.pid)) >= 2)
    assert all(status(ask(gateway)) == 200 for _ in range(20))
    victim = children(gateway.process.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "died" in gateway.log, 10)
    eventually(lambda: status(ask(gateway)) == 200, 10)
    assert gateway.stop() == 0


def test_workers_stop_when_whoever_looks_after_them_is_killed(serve: Start) -> None:
    gateway = serve(SCRIPTED.replace("port = 0", "port = 0\nworkers = 2"))
    eventually(lambda: len(children(gateway.process.pid)) >= 2)
    left = children(gateway.process.pid)
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not any(alive(pid) for pid in left), 15)


def alive(pid: int) -> bool:
    """Whether a process is there, and not merely waiting to be taken away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """Worker processes of a supervisor."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in listed if b"resource_tracker" not in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl")
def test_curl(serve: Start) -> None:
    gateway = serve()
    url = f"{gateway.url}/chat/completions"
    told = subprocess.run(["curl", "-sSi", url, "-d", ASK.decode()], capture_output=True, text=True, check=True).stdout
    assert told.startswith("HTTP/1.1 200 OK")
    assert "The well is deep." in told
    told = subprocess.run(
        ["curl", "-sSN", url, "-d", STREAM.decode()], capture_output=True, text=True, check=True
    ).stdout
    assert told.rstrip().endswith("data: [DONE]")
    big = "x" * 9_000_000
    sent = subprocess.run(["curl", "-sSi", url, "-d", "@-"], input=big, capture_output=True, text=True, check=False)
    assert "413" in sent.stdout.splitlines()[0]


def test_it_listens_on_loopback_only_without_keys(serve: Start, tmp_path: Path) -> None:
    assert "no API keys" in serve().lines[0]
    (tmp_path / "open.toml").write_text(SCRIPTED.replace("port = 0", 'port = 0\nhost = "0.0.0.0"'))
    command = [sys.executable, "-m", "stepwell.cli", "serve", "--config", str(tmp_path / "open.toml")]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 2
    assert "server.host" in told.stderr
    assert "[[keys]]" in told.stderr


def test_a_port_in_use_is_said_so(serve: Start, tmp_path: Path) -> None:
    gateway = serve()
    command = [sys.executable, "-m", "stepwell.cli", "serve", "--port", str(gateway.port)]
    (tmp_path / "stepwell.toml").write_text(SCRIPTED)
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 2
    assert "cannot listen" in told.stderr
