"""The whole of `stepwell.toml` as one frozen typed tree. An unknown key is an error with its line.

Secrets never stand in the file: it names the environment variable that holds them.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from stepwell.errors import ConfigError

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class Server(Section, frozen=True):
    """`[server]`: where the front door listens and what it takes."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Count = 1
    max_body_bytes: Count = 8 * 1024 * 1024
    max_head_bytes: Count = 32 * 1024
    max_connections: Count = 10_000
    receive_timeout_s: Seconds = 20.0
    """A request must have arrived whole within this time of its first byte."""
    idle_timeout_s: Seconds = 75.0
    send_timeout_s: Seconds = 60.0
    """A caller who takes no byte for this long is gone."""
    drain_s: Seconds = 30.0
    """After SIGTERM, requests in flight may take this long."""


class Key(Section, frozen=True):
    """`[[keys]]`: one API key, held by the environment variable `env`, and the tenant it belongs to."""

    tenant: Annotated[str, Meta(min_length=1)]
    env: Annotated[str, Meta(min_length=1)]
    principal: str = ""
    """Who holds the key; by default each key is a principal of its own."""


class Iam(Section, frozen=True):
    """`[engines.NAME.iam]`: IBM Cloud's exchange of an API key for a bearer token (watsonx.ai)."""

    api_key_env: Annotated[str, Meta(min_length=1)]
    url: str = "https://iam.cloud.ibm.com/identity/token"


class HttpEngine(Section, frozen=True, tag_field="type", tag="http"):
    """`[engines.NAME] type = "http"`: an OpenAI-compatible server, `url` up to and with `/v1`."""

    url: Annotated[str, Meta(pattern=r"^https?://")]
    model: str = ""
    """The server's name for the model; empty: the name the caller used."""
    key_env: str = ""
    iam: Iam | None = None
    headers: dict[str, str] = {}
    connect_timeout_s: Seconds = 5.0
    first_byte_timeout_s: Seconds = 60.0
    total_timeout_s: Seconds = 600.0
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    retry_base_s: Seconds = 0.1
    max_connections: Count = 1024
    breaker_failures: Count = 5
    breaker_open_s: Seconds = 10.0


class EmbeddedEngine(Section, frozen=True, tag_field="type", tag="embedded"):
    """`[engines.NAME] type = "embedded"`: a small model in this process, from a GGUF file."""

    path: str
    threads: Count = 2
    slots: Count = 16
    """Requests generated side by side."""
    context_tokens: Count = 512
    """Context of each slot."""
    max_waiting: Count = 4096


class ScriptedEngine(Section, frozen=True, tag_field="type", tag="scripted"):
    """`[engines.NAME] type = "scripted"`: the test double that ships: replies by script."""

    reply: str = "The well is deep."
    delay_s: Annotated[float, Meta(ge=0)] = 0.0
    frame_delay_s: Annotated[float, Meta(ge=0)] = 0.0
    fail: Literal["", "refuse", "limit", "error", "hang", "die"] = ""
    """How to fail: no connection, 429, 500, never answer, or die after the first words."""
    fail_first: Annotated[int, Meta(ge=0)] = 0
    """Fail only the first so many requests; 0: all of them."""


AnyEngine = HttpEngine | EmbeddedEngine | ScriptedEngine


class Route(Section, frozen=True):
    """`[routes.NAME]`: a model name that callers may ask for, and how it is answered."""

    engines: Annotated[list[str], Meta(min_length=1)]
    """Tried in this order."""
    price: str = ""
    """The row of prices.toml that the large model is paid by; empty: the route's name."""
    share: Literal["principal", "tenant"] = "principal"
    """Who may be given an answer that somebody else's equal question produced."""
    cache: bool = True
    cache_sampled: bool = False
    """Keep answers of requests with temperature above 0, too."""
    ttl_s: Seconds = 86_400.0


class Cache(Section, frozen=True):
    """`[cache]`: the exact cache: memory in front of a file."""

    path: str = "stepwell-data/cache.db"
    """Empty: memory only."""
    memory_bytes: Count = 64 * 1024 * 1024
    file_bytes: Count = 1024 * 1024 * 1024
    max_answer_bytes: Count = 1024 * 1024
    flush_ms: Count = 200


class Templates(Section, frozen=True):
    """`[templates]`: the campaign whose texts the first step fills."""

    url: Annotated[str, Meta(min_length=1)]
    """Where it is published: a folder, `file://` or `s3://bucket/prefix`."""
    public_keys: Annotated[list[str], Meta(min_length=1)]
    """Who may sign it: base64 of 32 bytes, or PEM."""
    locale: str = "en"
    """Of readers who do not say theirs."""
    refresh_s: Seconds = 30.0


class Ledger(Section, frozen=True):
    """`[ledger]`: where entries go and how long one may wait in memory."""

    path: str = "stepwell-data/ledger.db"
    flush_ms: Count = 200
    """A kill loses at most the entries of this time."""
    prices: str = ""
    """A prices.toml of your own, laid over the one that ships."""
    max_waiting: Count = 200_000
    """Entries kept in memory while the disk refuses them."""


class Promise(Section, frozen=True):
    """`[promise]`: how often a shallow answer may differ from the large model's. Today: never, exact answers only."""

    error: Fraction = 0.0


class Config(Section, frozen=True):
    """`stepwell.toml`."""

    server: Server = Server()
    keys: list[Key] = []
    engines: dict[str, AnyEngine] = {}
    routes: dict[str, Route] = {}
    templates: Templates | None = None
    cache: Cache = Cache()
    ledger: Ledger = Ledger()
    promise: Promise = Promise()


def load(path: str | Path, *, secrets: bool = True) -> Config:
    """Read and check the file; with `secrets`, every variable it names must be set. Raises ConfigError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}); name an existing file", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 at byte {error.start}", file=str(path)) from error
    return parse(text, file=str(path), secrets=secrets)


def parse(text: str, *, file: str = "stepwell.toml", secrets: bool = True) -> Config:
    """Check the text of a configuration. Raises ConfigError."""
    config: Config = typed(text, Config, file=file)
    for keys, what in complaints(config, secrets=secrets):
        raise ConfigError(what, file=file, line=line_of(text, keys), field=".".join(keys))
    return config


def typed(text: str, wanted: type[Any], *, file: str) -> Any:  # noqa: ANN401 - an instance of `wanted`
    """Decode TOML into a Struct; syntax, unknown keys and wrong types are errors with their line."""
    try:
        return msgspec.convert(tomllib.loads(text), wanted)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"is not TOML: {error}", file=file, line=int(found[1]) if found else 0) from error
    except msgspec.ValidationError as error:
        raise explained(str(error), text, wanted, file) from error


def complaints(config: Config, *, secrets: bool) -> Iterator[tuple[list[str], str]]:
    """What types cannot say: names that must exist, secrets that must be set. Yields (keys, what is wrong)."""
    for name, route in config.routes.items():
        for engine in route.engines:
            if engine not in config.engines:
                close = nearest(engine, config.engines)
                yield ["routes", name, "engines"], f"no engine is called {engine!r}{close}; add [engines.{engine}]"
    if config.promise.error > 0:
        yield ["promise", "error"], "only 0 can be kept so far: no step but the exact cache proposes answers"
    for keys, variable in named_secrets(config) if secrets else ():
        if not os.environ.get(variable):
            yield keys, f"the environment variable {variable} is not set; export it"


def named_secrets(config: Config) -> Iterator[tuple[list[str], str]]:
    """Every environment variable that the file names, and the keys that name it."""
    for index, key in enumerate(config.keys):
        yield ["keys", str(index), "env"], key.env
    for name, engine in config.engines.items():
        if isinstance(engine, HttpEngine) and engine.key_env:
            yield ["engines", name, "key_env"], engine.key_env
        if isinstance(engine, HttpEngine) and engine.iam:
            yield ["engines", name, "iam", "api_key_env"], engine.iam.api_key_env


def explained(message: str, text: str, wanted: type[Any], file: str) -> ConfigError:
    """Turn msgspec's "... - at `$.cache.path`" into a ConfigError with the line of that key."""
    what, _, place = message.partition(" - at `$")
    keys = [key for key in re.split(r"[.\[\]]+", place.rstrip("`").replace("[...]", ".*")) if key]
    keys = [culprit(keys[0], tomllib.loads(text), wanted) if key == "*" else key for key in keys]
    unknown = re.search(r"unknown field `(.+)`", what)
    if unknown:
        keys.append(unknown[1])
        what = f"unknown key{nearest(unknown[1], known_keys(wanted))}"
    elif missing := re.search(r"missing required field `(.+)`", what):
        what = f"the key {missing[1]!r} is missing; add it"
    return ConfigError(what, file=file, line=line_of(text, keys), field=".".join(keys))


def culprit(table: str, tree: dict[str, Any], wanted: type[Any]) -> str:
    """Which entry of `table` is wrong: msgspec does not say its name."""
    entries = tree.get(table)
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        try:
            msgspec.convert({table: {name: entry}}, wanted)
        except msgspec.ValidationError:
            return str(name)
    return "*"


def nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """Say `; did you mean X?` where something known is close to `name`."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def known_keys(wanted: type[Any]) -> set[str]:
    """Every key that may stand anywhere below a Struct."""
    keys: set[str] = set()
    for kind in msgspec.inspect.multi_type_info([wanted, *Section.__subclasses__()]):
        if isinstance(kind, msgspec.inspect.StructType):
            keys |= {field.encode_name for field in kind.fields}
    return keys


def line_of(text: str, keys: list[str]) -> int:
    """Line (from 1) of the deepest key of a path that can be found; 0 where none can."""
    best, depth_found = 0, 0
    table: list[str] = []
    arrays: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[(\[)?\s*(.+?)\s*\]\]?\s*(#.*)?$", line):
            table = split_key(header[2])
            if header[1]:
                arrays[header[2]] = arrays.get(header[2], -1) + 1
                table = [*table, str(arrays[header[2]])]
            path = table
        elif pair := re.match(r"\s*([^#=\s][^=]*?)\s*=", line):
            path = [*table, *split_key(pair[1])]
        else:
            continue
        depth = min(len(path), len(keys))
        if depth > depth_found and path[:depth] == keys[:depth]:
            best, depth_found = number, depth
    return best


def split_key(dotted: str) -> list[str]:
    """Split a TOML key at its dots, quotes respected."""
    return [part[0] or part[1] or part[2] for part in re.findall(r'"([^"]*)"|\'([^\']*)\'|([^.\s"\']+)', dotted)]
