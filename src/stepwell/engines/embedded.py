"""A small model in this process: llama.cpp through the xllamacpp wheel, many requests side by side in its slots.

llama.cpp's server layer takes OpenAI's body and gives OpenAI's replies; a thread a slot waits for them. Every
generation is a stream inside, also where JSON was asked for: so it can be stopped between any two tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec

from stepwell.config_embedded import EmbeddedEngine, complaints
from stepwell.engines import replay
from stepwell.engines.across import Across
from stepwell.engines.gguf_header import MAGIC, header
from stepwell.engines.llama import started
from stepwell.engines.openai import ASIDE
from stepwell.engines.structured import Shape, checked, shape_of, unable
from stepwell.errors import ConfigError, EngineBadReply, EngineError, EngineRefusal, EngineUnavailable
from stepwell.types import Chunk, Kind, Request, Usage

BAD_REQUEST, NO_SUCH_THING = 400, 501
DEFAULTS: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""OpenAI's defaults; llama.cpp's own would change the answers of callers who send none."""
CALLS: dict[Kind, str] = {
    "chat": "handle_chat_completions",
    "completion": "handle_completions",
    "embedding": "handle_embeddings",
}
CACHE_BLOCK = 32
"""Numbers that share a scale in every rounded cache type."""
FLASH = {"auto": -1, "off": 0, "on": 1}
CLOSE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space as json.dumps writes it, in the words of llguidance, which the wheel is built with."""
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, Any]).decode


class Embedded:
    """One GGUF file, loaded on construction. Raises ConfigError where it cannot be."""

    def __init__(self, name: str, config: EmbeddedEngine) -> None:
        self.name, self.config = name, config
        self.server: Any = loaded(config)
        self.threads = ThreadPoolExecutor(config.slots, thread_name_prefix=f"engine {name}")
        self.num_waiting = 0

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the model's chat template has a place for tools: llama.cpp drops them without a word where not."""
        return "tools" in str(header(Path(self.config.path)).fields.get("tokenizer.chat_template", ""))

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `protocols.Engine`. Raises EngineRefusal where llama.cpp refuses, EngineUnavailable in a full line.

        EngineBadReply, before anything is said, where JSON was asked for and the model wrote something else.
        """
        if self.num_waiting >= self.config.max_waiting:
            raise EngineUnavailable(f"{self.num_waiting} requests wait already", engine=self.name)
        run = Run(request, self)
        self.num_waiting += 1
        work = self.threads.submit(run.work)
        try:
            while not run.reply.over:
                for chunk in await run.reply.next():
                    yield chunk
        finally:
            self.num_waiting -= 1
            run.reply.stopped = True
            work.cancel()

    async def close(self) -> None:
        """Let running generations end, then free the model."""
        await asyncio.to_thread(self.threads.shutdown, wait=True, cancel_futures=True)
        self.server = None


class Run:
    """One generation, in a slot's thread."""

    def __init__(self, request: Request, engine: Embedded) -> None:
        self.request, self.engine = request, engine
        self.reply = Across()
        self.shape: Shape | None = None
        self.events: list[Chunk] = []
        """What is held back: all of a JSON reply, and of a stream that is checked at its end."""

    def work(self) -> None:
        """Generate to the end, or until nobody wants it any more."""
        error: EngineError | None = None
        try:
            if not self.reply.stopped:
                self.ask()
        except EngineError as told:
            error = told
        except Exception as told:  # noqa: BLE001 - llama.cpp raises RuntimeError for whatever it cannot take
            error = refused(self.engine.name, {"code": BAD_REQUEST, "message": str(told)})
        self.reply.end(error)

    def ask(self) -> None:
        """Call llama.cpp and end the reply. Raises EngineError."""
        call = getattr(self.engine.server, CALLS[self.request.kind])
        fields = decode(self.request.body)
        if self.request.kind == "embedding":
            self.take_vectors(call(fields))
            return
        self.shape = shape_of(fields, self.engine.name)
        if self.shape is not None and self.shape.tools and not self.engine.knows_tools:
            raise unable("the model's chat template has no place for tools", self.engine.name)
        call(asked(fields, self.shape), self.take)
        if self.reply.error is None and not self.reply.stopped:
            self.finish()

    def finish(self) -> None:
        """Check what was held back and hand it over. Raises EngineBadReply."""
        if not self.events and not (self.request.stream and self.shape is None):
            raise EngineBadReply("nothing was generated", engine=self.engine.name)
        body = b""
        if self.events:
            body = replay.to_json(b"".join(event.data for event in self.events), self.request.kind)
        if self.shape is not None:
            checked(body, self.shape, self.engine.name)
        if self.request.stream:
            self.reply.put(*self.events, Chunk(replay.DONE, last=True))
        else:
            self.reply.put(Chunk(body, replay.usage_of(body, "json"), last=True))

    def take(self, told: dict[str, Any]) -> bool:
        """Take one event from llama.cpp; True tells it to stop."""
        if "error" in told:
            self.reply.error = refused(self.engine.name, told["error"])
            return True
        told["model"] = self.request.model
        told.pop("timings", None)
        event = Chunk(b"data: " + encode(told) + b"\n\n", usage_in(told))
        if self.request.stream and self.shape is None:
            self.reply.put(event)
        else:
            self.events.append(event)
        return self.reply.stopped

    def take_vectors(self, told: dict[str, Any]) -> None:
        """Take the reply to a request for embeddings. Raises EngineRefusal."""
        if "error" in told:
            raise refused(self.engine.name, told["error"])
        told["model"] = self.request.model
        self.reply.put(Chunk(encode(told), usage_in(told), last=True))


def loaded(config: EmbeddedEngine) -> Any:  # noqa: ANN401
    """Load the model. Raises ConfigError that says what is missing."""
    path = Path(config.path)
    for key, what in complaints(config):
        raise ConfigError(what, field=key)
    if find_spec("xllamacpp") is None:
        raise ConfigError("an embedded engine needs llama.cpp: pip install 'stepwell[embedded]'", field="engines")
    if not path.is_file():
        raise ConfigError("there is no such file; name a GGUF model", file=str(path), field="path")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ConfigError("this is not a GGUF file", file=str(path), field="path")
    check_cache(config)
    import xllamacpp  # noqa: PLC0415 - heavy, and only where a model is embedded

    try:
        return started(params(xllamacpp.CommonParams(), config))
    except RuntimeError as error:
        raise ConfigError(f"llama.cpp cannot load it ({error})", file=str(path), field="path") from error


def check_cache(config: EmbeddedEngine) -> None:
    """Raise ConfigError where keys or values are no multiple of the blocks that the cache would keep them in."""
    kinds = {"cache_type_k": config.cache_type_k, "cache_type_v": config.cache_type_v}
    rounded = {key: kind for key, kind in kinds.items() if kind.startswith("q")}
    if not rounded:
        return
    about = header(Path(config.path))
    fields = {name.removeprefix(f"{about.architecture}."): value for name, value in about.fields.items()}
    usual = fields.get("embedding_length", 0) // max(1, fields.get("attention.head_count", 1))
    for key, kind in rounded.items():
        width = fields.get("attention.key_length" if key.endswith("k") else "attention.value_length", usual)
        if width % CACHE_BLOCK:
            what = f"this model's heads are {width} wide, and {kind} takes {CACHE_BLOCK} at a time: say f16"
            raise ConfigError(what, file=config.path, field=key)


def params(given: Any, config: EmbeddedEngine) -> Any:  # noqa: ANN401
    """llama.cpp's settings, none left to chance.

    Its own HTTP port, which cannot be left out, is locked with a key nobody knows. Its cache of prompts, 8 GiB beside
    the slots' own, is off: the stair's cache stands in front.
    """
    import xllamacpp  # noqa: PLC0415

    given.model.path = config.path
    given.n_parallel = config.slots
    given.n_ctx = config.slots * config.context_tokens
    given.n_batch = config.batch_tokens
    given.n_ubatch = min(config.batch_tokens, given.n_ubatch)
    given.cpuparams.n_threads = config.threads
    given.cpuparams_batch.n_threads = config.batch_threads or config.threads
    given.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{config.cache_type_k.upper()}"]
    given.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{config.cache_type_v.upper()}"]
    given.flash_attn_type = xllamacpp.llama_flash_attn_type(FLASH[config.flash_attention])
    given.cache_ram_mib = 0
    given.n_threads_http = 1
    given.cont_batching = True
    given.warmup = False
    given.verbosity = -1
    given.api_keys = [token_hex(32)]
    return given


def asked(fields: Mapping[str, Any], shape: Shape | None) -> dict[str, Any]:
    """The caller's body as llama.cpp is to see it: always a stream that counts its tokens, and with our own grammar."""
    given = {name: value for name, value in fields.items() if value is not None and name not in ASIDE}
    given.pop("response_format", None)  # llama.cpp heeds it in some calls and not in others
    if shape is not None and shape.schema is not None:
        given["grammar"] = grammar(shape.schema)
    return {**DEFAULTS, **given, "stream": True, "stream_options": {"include_usage": True}}


def grammar(schema: Mapping[str, Any]) -> str:
    """A schema as llama.cpp's grammar; white space bounded, for a model that never saw JSON writes it for ever."""
    from xllamacpp import json_schema_to_grammar  # noqa: PLC0415

    return str(json_schema_to_grammar({**schema, "x-guidance": CLOSE}))


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
