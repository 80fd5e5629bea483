"""What tests share: a real gateway in a process of its own, and a real server behind it that does as it is told."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from servers import Missing, PostgresServer, RedisServer, Server

ROOT = Path(__file__).parent.parent
WRITER = ROOT / "models" / "house-writer" / "house-writer.gguf"
START_S, STOP_S = 20.0, 20.0
OK = 200

SCRIPTED = """
[server]
port = 0

[engines.scripted]
type = "scripted"
reply = "The well is deep."

[routes.well]
engines = ["scripted"]
price = "gpt-4o-mini"
"""


@dataclass
class Gateway:
    """A running `stepwell serve`."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    port: int
    lines: list[str] = field(default_factory=list)

    def wait_until_ready(self) -> None:
        url, until_s = self.url.removesuffix("/v1") + "/readyz", time.monotonic() + START_S
        while status(url) != OK and time.monotonic() < until_s:
            time.sleep(0.02)
        assert status(url) == OK

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(STOP_S)

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


Start = Callable[..., Gateway]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    """Start `stepwell serve` with a configuration; it is stopped at the end."""
    started: list[Gateway] = []

    def start(config: str = SCRIPTED, *, name: str = "gateway", **environment: str) -> Gateway:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "stepwell.toml").write_text(config)
        with (folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "stepwell.cli", "serve"],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **environment},
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+)/v1", line)
        if found is None:
            process.kill()
            process.communicate()
            pytest.fail(f"the gateway did not start: {line!r} {(folder / 'log.txt').read_text()[-2000:]}")
        gateway = Gateway(process, f"http://{found[1]}:{found[2]}/v1", folder, int(found[2]), [line])
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.process.kill()
        gateway.process.wait(STOP_S)
        assert gateway.process.stdout is not None
        gateway.process.stdout.close()


Script = Callable[[bytes, bytes, asyncio.StreamWriter], object]


class Upstream:
    """A server in a thread of its own: every request goes to `script(head, body, writer)`, an async function."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.num_connections = 0
        self.script: Script = json_reply(b"{}")
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.ready.wait(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self.answer, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.requests.append((head, body))
                await self.script(head, body, writer)  # type: ignore[misc]
        writer.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


def json_reply(body: bytes, status: str = "200 OK", *, more: bytes = b"") -> Script:
    async def script(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode()
        writer.write(head + more + b"\r\n" + body)
        await writer.drain()

    return script


def event_reply(*events: bytes, gap_s: float = 0.0, ends: bool = True) -> Script:
    """A stream, one write an event; without `ends` it is cut off after the last one."""

    async def script(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(gap_s)
        if ends:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return script


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


def forwarding(upstream: Upstream, *, engine: str = "", route: str = "", server: str = "") -> str:
    """A configuration whose one model is behind `upstream`."""
    return f"""
[server]
port = 0
{server}

[engines.up]
type = "http"
url = "{upstream.url}"
retry_base_s = 0.01
{engine}

[routes.well]
engines = ["up"]
price = "gpt-4o-mini"
{route}
"""


@pytest.fixture
def data() -> Path:
    """The folder of the test data, or a skip that says how to get it; a folder without it is a failure."""
    named = os.environ.get("STEPWELL_DATA")
    if not named:
        pytest.skip("set STEPWELL_DATA to a folder with e2e/ (E2E NLG Challenge: github.com/tuetschek/e2e-dataset)")
    folder = Path(named)
    missing = [
        name for name in ("train.jsonl", "devset.csv", "testset_w_refs.csv") if not (folder / "e2e" / name).exists()
    ]
    assert not missing, f"STEPWELL_DATA={named} is incomplete: no e2e/{', e2e/'.join(missing)}"
    return folder


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A redis-server of the tests' own."""
    yield from running(RedisServer)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL cluster of the tests' own."""
    yield from running(PostgresServer)


AnyServer = TypeVar("AnyServer", bound=Server)


def running(make: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """Start a server, or skip with the sentence that says how to get it; it is thrown away at the end."""
    try:
        server = make()
    except Missing as missing:
        pytest.skip(str(missing))
    try:
        server.start()
        yield server
    finally:
        server.close()
