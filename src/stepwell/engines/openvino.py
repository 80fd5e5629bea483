"""A small model in OpenVINO GenAI, for many requests at once: the same GGUF file, in a process beside this one.

`openvino_child.py` says why it has a process of its own. Where that dies, what it was working on has failed, the next
engines are asked, and another one is started.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import Thread
from time import monotonic

from stepwell.config_embedded import EmbeddedEngine, complaints
from stepwell.engines.across import Across
from stepwell.engines.openvino_wire import Asked, Made, Ready, Setup, error_of, framed, frames
from stepwell.errors import ConfigError, EngineUnavailable
from stepwell.types import Chunk, Request

AGAIN_S = 10.0
"""A process that died is started anew no more often than this."""
END_S = 30.0


class OpenVino:
    """One GGUF file, loaded on construction. Raises ConfigError where it cannot be."""

    def __init__(self, name: str, config: EmbeddedEngine) -> None:
        self.name, self.config = name, config
        self.child = Child(name, config)
        self.threads = ThreadPoolExecutor(1, thread_name_prefix=f"engine {name}")
        self.starting: Future[Child] | None = None
        self.started_s = monotonic()
        self.num_waiting = 0

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `protocols.Engine`.

        Raises EngineRefusal for what it cannot do, EngineBadReply where JSON was asked for and something else came,
        EngineUnavailable in a full line, and where the process has died.
        """
        if self.num_waiting >= self.config.max_waiting:
            raise EngineUnavailable(f"{self.num_waiting} requests wait already", engine=self.name)
        child, reply = self.living(), Across()
        self.num_waiting += 1
        number = child.ask(request, reply)
        try:
            while not reply.over:
                for chunk in await reply.next():
                    yield chunk
        finally:
            self.num_waiting -= 1
            child.leave(number, reply)

    def living(self) -> Child:
        """The process. Raises EngineUnavailable while there is none, and sees to it that there will be."""
        if self.starting is not None and self.starting.done():
            with suppress(ConfigError):
                self.child = self.starting.result()
            self.starting = None
        if not self.child.dead:
            return self.child
        if self.starting is None and monotonic() - self.started_s > AGAIN_S:
            self.started_s = monotonic()
            self.starting = self.threads.submit(self.again)
        raise EngineUnavailable("OpenVINO's process has died; it is started again", engine=self.name)

    def again(self) -> Child:
        """Another process in the place of a dead one. Raises ConfigError."""
        self.child.close()
        return Child(self.name, self.config)

    async def close(self) -> None:
        """Let running generations end, then free the model."""
        self.threads.shutdown(wait=True)
        if self.starting is not None and self.starting.exception() is None:
            self.starting.result().close()
        await self.child.closed()


class Child:
    """The process, and who waits for what from it. Raises ConfigError where it cannot load the model."""

    def __init__(self, name: str, config: EmbeddedEngine) -> None:
        self.name = name
        self.process = started(name, config)
        self.open: dict[int, Across] = {}
        self.numbers = count()
        self.dead = False
        self.writer = ThreadPoolExecutor(1, thread_name_prefix=f"to {name}")
        self.reader = Thread(target=self.read, name=f"from {name}", daemon=True)
        self.reader.start()

    def ask(self, request: Request, reply: Across) -> int:
        """Send a request; `reply` hears of it."""
        number = next(self.numbers)
        self.open[number] = reply
        self.send(Asked(number, request))
        if self.dead:  # in that very moment: nobody else would end it
            self.end()
        return number

    def leave(self, number: int, reply: Across) -> None:
        """Want no more of a reply."""
        reply.stopped = True
        if self.open.pop(number, None) is not None and not self.dead:
            self.send(Asked(number))

    def send(self, asked: Asked) -> None:
        """Write without waiting: the process may be in the middle of a step, and the pipe full."""
        with suppress(RuntimeError):  # closing
            self.writer.submit(self.write, framed(asked))

    def write(self, data: bytes) -> None:
        """In the writer's thread."""
        assert self.process.stdin is not None  # noqa: S101 - opened as a pipe
        with suppress(OSError, ValueError):
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def read(self) -> None:
        """Hand on what comes, until the process has ended; in the reader's thread."""
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe
        for made in frames(self.process.stdout, Made):
            reply = self.open.get(made.number)
            if reply is None:
                continue
            if made.ended:
                self.open.pop(made.number, None)
                reply.end(error_of(made.fault, self.name) if made.fault else None, made.chunks)
            else:
                reply.put(*made.chunks)
        self.dead = True
        self.end()

    def end(self) -> None:
        """Nothing more will come of what is open."""
        while self.open:
            with suppress(KeyError):  # somebody was quicker
                self.open.popitem()[1].end(EngineUnavailable("OpenVINO's process has died", engine=self.name))

    async def closed(self) -> None:
        """Close, without holding up the event loop."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Let what runs end, then the process."""
        self.writer.shutdown(wait=True)
        assert self.process.stdin is not None  # noqa: S101 - opened as a pipe
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


def started(name: str, config: EmbeddedEngine) -> subprocess.Popen[bytes]:
    """The process, with the model loaded. Raises ConfigError that says what is missing."""
    for key, what in complaints(config):
        raise ConfigError(what, field=key)
    if find_spec("openvino_genai") is None:
        raise ConfigError("OpenVINO GenAI is not installed: pip install 'stepwell[openvino]'", field="engine")
    if not Path(config.path).is_file():
        raise ConfigError("there is no such file; name a GGUF model", file=config.path, field="path")
    command = [sys.executable, "-m", "stepwell.engines.openvino_child"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    assert process.stdout is not None  # noqa: S101
    with suppress(OSError):
        process.stdin.write(framed(Setup(name, config)))
        process.stdin.flush()
    ready = next(frames(process.stdout, Ready), Ready("OpenVINO's process died while it loaded the model"))
    if ready.complaint:
        with process:
            process.kill()
        raise ConfigError(ready.complaint, file=config.path, field="path")
    return process
