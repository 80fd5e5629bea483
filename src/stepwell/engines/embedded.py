"""A small model in this process: llama.cpp through the xllamacpp wheel, many requests side by side in its slots.

llama.cpp's server layer takes OpenAI's body and gives OpenAI's replies; a thread a slot waits for them. Every
generation is a stream inside, also where JSON was asked for: so it can be stopped between any two tokens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec

from stepwell.config import EmbeddedEngine
from stepwell.engines import replay
from stepwell.engines.openai import ASIDE
from stepwell.errors import ConfigError, EngineBadReply, EngineError, EngineRefusal, EngineUnavailable
from stepwell.types import Chunk, Kind, Request, Usage

MAGIC = b"GGUF"
BAD_REQUEST, NO_SUCH_THING = 400, 501
DEFAULTS: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""OpenAI's defaults; llama.cpp's own would change the answers of callers who send none."""
CALLS: dict[Kind, str] = {
    "chat": "handle_chat_completions",
    "completion": "handle_completions",
    "embedding": "handle_embeddings",
}
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, Any]).decode


class Embedded:
    """One GGUF file, loaded on construction. Raises ConfigError where it cannot be."""

    def __init__(self, name: str, config: EmbeddedEngine) -> None:
        self.name, self.config = name, config
        self.server: Any = loaded(config)
        self.threads = ThreadPoolExecutor(config.slots, thread_name_prefix=f"engine {name}")
        self.num_waiting = 0

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `protocols.Engine`. Raises EngineRefusal where llama.cpp refuses, EngineUnavailable in a full line."""
        if self.num_waiting >= self.config.max_waiting:
            raise EngineUnavailable(f"{self.num_waiting} requests wait already", engine=self.name)
        run = Run(request, self.name)
        self.num_waiting += 1
        work = self.threads.submit(run.work, self.server)
        try:
            while not run.over:
                for chunk in await run.next():
                    yield chunk
        finally:
            self.num_waiting -= 1
            run.stopped = True
            work.cancel()

    async def close(self) -> None:
        """Let running generations end, then free the model."""
        await asyncio.to_thread(self.threads.shutdown, wait=True, cancel_futures=True)
        self.server = None


class Run:
    """One generation: made in a slot's thread, read in the event loop."""

    def __init__(self, request: Request, engine: str) -> None:
        self.request, self.engine = request, engine
        self.loop = asyncio.get_running_loop()
        self.made: deque[Chunk] = deque()
        self.events: list[bytes] = []
        self.error: EngineError | None = None
        self.ended = self.stopped = False
        self.arrived = asyncio.Event()

    @property
    def over(self) -> bool:
        """True once everything made has been read."""
        return self.ended and not self.made and self.error is None

    async def next(self) -> list[Chunk]:
        """All that was made since the last call. Raises EngineError where the generation failed."""
        await self.arrived.wait()
        self.arrived.clear()
        chunks = []
        while self.made:
            chunks.append(self.made.popleft())
        if not chunks and self.error is not None:
            raise self.error
        if self.ended:
            self.arrived.set()
        return chunks

    # --- in the slot's thread

    def work(self, server: Any) -> None:  # noqa: ANN401 - xllamacpp has no types
        """Generate to the end, or until nobody wants it any more."""
        try:
            if not self.stopped:
                self.ask(server)
        except Exception as error:  # noqa: BLE001 - llama.cpp raises RuntimeError for whatever it cannot take
            self.error = self.error or refused(self.engine, {"code": BAD_REQUEST, "message": str(error)})
        self.ended = True
        self.wake()

    def ask(self, server: Any) -> None:  # noqa: ANN401
        """Call llama.cpp and end the reply."""
        call = getattr(server, CALLS[self.request.kind])
        if self.request.kind == "embedding":
            self.take_vectors(call(decode(self.request.body)))
            return
        call(asked(self.request), self.take)
        if self.error is not None or self.stopped:
            return
        if self.request.stream:
            self.made.append(Chunk(replay.DONE, last=True))
        elif self.events:
            body = replay.to_json(b"".join(self.events), self.request.kind)
            self.made.append(Chunk(body, replay.usage_of(body, "json"), last=True))
        else:
            self.error = EngineBadReply("nothing was generated", engine=self.engine)

    def take(self, told: dict[str, Any]) -> bool:
        """Take one event from llama.cpp; True tells it to stop."""
        if "error" in told:
            self.error = refused(self.engine, told["error"])
            return True
        told["model"] = self.request.model
        told.pop("timings", None)
        event = b"data: " + encode(told) + b"\n\n"
        if self.request.stream:
            self.made.append(Chunk(event, usage_in(told)))
            self.wake()
        else:
            self.events.append(event)
        return self.stopped

    def take_vectors(self, told: dict[str, Any]) -> None:
        """Take the reply to a request for embeddings."""
        if "error" in told:
            self.error = refused(self.engine, told["error"])
            return
        told["model"] = self.request.model
        self.made.append(Chunk(encode(told), usage_in(told), last=True))

    def wake(self) -> None:
        """Tell the event loop that something is there; once is enough until it has looked."""
        if not self.arrived.is_set() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.arrived.set)


def loaded(config: EmbeddedEngine) -> Any:  # noqa: ANN401
    """Load the model. Raises ConfigError that says what is missing."""
    path = Path(config.path)
    if find_spec("xllamacpp") is None:
        raise ConfigError("an embedded engine needs llama.cpp: pip install 'stepwell[embedded]'", field="engines")
    if not path.is_file():
        raise ConfigError("there is no such file; name a GGUF model", file=str(path), field="path")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ConfigError("this is not a GGUF file", file=str(path), field="path")
    import xllamacpp  # noqa: PLC0415 - heavy, and only where a model is embedded

    try:
        return xllamacpp.Server(params(xllamacpp.CommonParams(), config))
    except RuntimeError as error:
        raise ConfigError(f"llama.cpp cannot load it ({error})", file=str(path), field="path") from error


def params(given: Any, config: EmbeddedEngine) -> Any:  # noqa: ANN401
    """llama.cpp's settings. Its own HTTP port, which cannot be left out, is locked with a key nobody knows."""
    given.model.path = config.path
    given.n_parallel = config.slots
    given.n_ctx = config.slots * config.context_tokens
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = config.threads
    given.cont_batching = True
    given.warmup = False
    given.verbosity = -1
    given.api_keys = [token_hex(32)]
    return given


def asked(request: Request) -> dict[str, Any]:
    """The caller's body as llama.cpp is to see it: always a stream that counts its tokens."""
    told = decode(request.body)
    given = {name: value for name, value in told.items() if value is not None and name not in ASIDE}
    return {**DEFAULTS, **given, "stream": True, "stream_options": {"include_usage": True}}


def usage_in(told: dict[str, Any]) -> Usage | None:
    """The usage in one event."""
    usage = told.get("usage")
    return Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0) if usage else None


def refused(engine: str, error: dict[str, Any]) -> EngineError:
    """llama.cpp's error as a refusal in OpenAI's shape."""
    status = error.get("code", BAD_REQUEST)
    status = BAD_REQUEST if status == NO_SUCH_THING or not isinstance(status, int) else status
    message = str(error.get("message", "llama.cpp refuses this request"))
    told = {"message": message, "type": "invalid_request_error", "param": None, "code": error.get("type")}
    return EngineRefusal(message, engine=engine, status=status, body=encode({"error": told}))
