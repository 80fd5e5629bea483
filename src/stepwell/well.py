"""The composition root: a Config becomes a Well. The only file that names concrete classes and chooses among them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from hashlib import sha256
from itertools import count
from secrets import token_hex
from time import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from stepwell.cache.admit import SHARE, Allowance, fairly
from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import Terms
from stepwell.cache.simulate import keep_tuned
from stepwell.cache.tags import Tags
from stepwell.config import Cache as CacheSection
from stepwell.config import Config, Route, Server
from stepwell.engines.choose import chosen
from stepwell.errors import ConfigError, StoreError
from stepwell.gateway import answers
from stepwell.gateway.admit import bearer
from stepwell.gateway.answer import Door
from stepwell.gateway.http import Limits
from stepwell.gateway.serve import Place
from stepwell.kept import Kept
from stepwell.kept import compose as whats_kept
from stepwell.ledger import prices
from stepwell.ledger.book import Book
from stepwell.ledger.metrics import Metrics
from stepwell.ledger.prices import Price
from stepwell.protocols import Engine, Step, Store
from stepwell.quality.promise import rule as promise_rule
from stepwell.steps.below import Below, Rule
from stepwell.steps.cache import Cache
from stepwell.steps.descend import Rule as PromiseRule
from stepwell.steps.descend import descend
from stepwell.steps.large import Large
from stepwell.steps.public import everybodys
from stepwell.store.memory import Memory
from stepwell.store.objects import opened
from stepwell.store.order import lru
from stepwell.store.sqlite import Sqlite
from stepwell.types import Caller, Settler, Usage

if TYPE_CHECKING:
    from stepwell.meaning import ByMeaning
    from stepwell.specialists import Specialists

DEFAULT_SECRET = b"stepwell"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "1")
"""Read as numpy is loaded. On busy cores its threads wait for each other, and requests for them: seconds, not 40 ms."""


class Well(Struct, frozen=True, kw_only=True):
    """A running well: the door that callers knock at, and everything behind it."""

    door: Door
    limits: Limits
    place: Place
    engines: Mapping[str, Engine]
    below: Below
    book: Book
    kept: Kept
    meaning: ByMeaning | None = None
    special: Specialists | None = None

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Do what goes on beside requests: choose what memory lets go, follow the logs, judge, learn."""
        meaning = self.meaning
        exact = self.below.exact
        with suppress(StoreError):  # what was invalidated before, known before anything is kept
            await exact.ready()
        beside = [each.work() for each in (meaning, self.special, self.kept) if each is not None]
        work = (keep_tuned(exact.memory), *(one for each in beside for one in each))
        tasks = [asyncio.get_running_loop().create_task(each) for each in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Give everything back; what waits to be written is written."""
        if self.meaning is not None:
            await self.meaning.close()
        if self.special is not None:
            self.special.close()
        await self.below.close()
        for engine in self.engines.values():
            await engine.close()
        await self.kept.close()
        await self.book.close()


def build(config: Config, *, worker: str = "") -> Well:
    """Put a well together; `worker` tells its metrics from those of others behind the same port.

    Raises ConfigError and StoreError where something it needs is not there.
    """
    os.environ.setdefault(*ONE_THREAD)
    callers = {
        bearer(os.environ[key.env].encode()): Caller(key.tenant, key.principal or key.env) for key in config.keys
    }
    check_door(config, callers)
    paid = {name: large_price(name, route, config) for name, route in config.routes.items()}
    engines = {name: chosen(name, config.engines[name]) for name in used_engines(config)}
    metrics = Metrics(worker)
    book = opened_book(config, paid, metrics)
    rules = {name: rule(name, route, config) for name, route in config.routes.items()}
    exact = kept_answers(config, rules)
    meaning = by_meaning(config, exact, engines, partial(worth, paid), worker)
    large = Large({name: [engines[each] for each in route.engines] for name, route in config.routes.items()})
    settlers = (book.record,) if meaning is None else (book.record, meaning.semantic.settle, meaning.audits.settle)
    counters = () if meaning is None else (meaning.audits.count,)
    rules_on: PromiseRule = promise_rule if meaning is None else meaning.audits.rule
    special = specialists(config, exact, engines, paid, meaning=meaning, worker=worker)
    if special is not None:
        rules_on, settlers = special.rule(rules_on), (*settlers, special.settle)
    lower: dict[str, tuple[Step, ...]] = {
        name: (*(special.of(name) if special else ()), large) for name in config.routes
    }
    below = below_cache(config, exact, rules, worth=partial(worth, paid), settlers=settlers, meaning=meaning)
    cache = cache_step(below, rules, lower, rules_on, meaning)
    upper = (*templates(config, partial(worth, paid)), cache)
    kept = whats_kept(config, callers, partial(worth, paid))
    door = Door(
        callers=callers,
        stairs={name: (*upper, *steps) for name, steps in lower.items()},
        rule=rules_on,
        settlers=(cache.settle, *counters, *settlers, *kept.settlers),
        new_id=ids(),
        keep_bytes=config.cache.max_answer_bytes,
        ready=lambda: "" if meaning is None else meaning.unknown(),
        metrics=lambda: metrics.text(num_lost=book.num_lost()) + told(meaning) + told(special),
        refused=metrics.refused,
        started_s=int(time()),
        worth=partial(worth, paid),
        public=answers.addresses(below.public, rules, config.cache.public_max_age_s),
        surfaces=kept.surfaces,
        opens=kept.opens,
    )
    return Well(
        door=door,
        limits=limits(config.server),
        place=place(config.server),
        engines=engines,
        below=below,
        book=book,
        kept=kept,
        meaning=meaning,
        special=special,
    )


def opened_book(config: Config, paid: Mapping[str, Price], metrics: Metrics) -> Book:
    """The ledger. Raises StoreError."""
    ledger = config.ledger
    return Book(ledger.path, paid, flush_ms=ledger.flush_ms, max_waiting=ledger.max_waiting, watch=metrics.observe)


def below_cache(
    config: Config,
    exact: Exact,
    rules: Mapping[str, Rule],
    *,
    worth: Callable[[str, Usage | None], float],
    settlers: tuple[Settler, ...],
    meaning: ByMeaning | None,
) -> Below:
    """What outlives a request of the second step."""
    secret = os.environ.get(config.cache.secret_env, "").encode() or DEFAULT_SECRET
    return Below(
        exact,
        worth,
        max_bytes=config.cache.max_answer_bytes,
        lease_s=config.cache.lease_s,
        after=settlers,
        meaning=None if meaning is None else meaning.semantic,
        public=everybodys(exact, rules, secret=secret, quorum=config.cache.public_quorum),
        allowance=allowance(config, exact),
    )


def cache_step(
    below: Below,
    rules: Mapping[str, Rule],
    lower: Mapping[str, Sequence[Step]],
    rules_on: PromiseRule,
    meaning: ByMeaning | None,
) -> Cache:
    """The second step; a refresh asks only what is below it."""
    return Cache(
        below,
        rules,
        lambda request: descend(request, lower[request.model], rules_on),
        identify=None if meaning is None else meaning.identify,
        meaning=None if meaning is None else meaning.semantic,
    )


def limits(server: Server) -> Limits:
    """What one connection may use."""
    return Limits(
        max_body_bytes=server.max_body_bytes,
        max_head_bytes=server.max_head_bytes,
        max_connections=server.max_connections,
        receive_timeout_s=server.receive_timeout_s,
        idle_timeout_s=server.idle_timeout_s,
        send_timeout_s=server.send_timeout_s,
    )


def place(server: Server) -> Place:
    """Where to listen."""
    return Place(host=server.host, port=server.port, workers=server.workers, drain_s=server.drain_s)


def check_door(config: Config, callers: Mapping[bytes, Caller]) -> None:
    """Without keys anybody who reaches the port may spend money: then only this machine may reach it."""
    if not config.routes:
        raise ConfigError("no model to serve: add [routes.NAME] with its engines", field="routes")
    if len(callers) < len(config.keys):
        raise ConfigError("two keys have the same value: every key belongs to one tenant", field="keys")
    if not callers and config.server.host not in LOOPBACK:
        what = f"{config.server.host!r} can be reached from outside, and no [[keys]] are configured; add some"
        raise ConfigError(what, field="server.host")


def large_price(name: str, route: Route, config: Config) -> Price:
    """What the large model of a route costs. Raises ConfigError where no row of prices.toml says so."""
    table = prices.load(config.ledger.prices)
    try:
        return prices.price_of(table, route.price or name)
    except ConfigError as error:
        raise ConfigError(str(error), field=f"routes.{name}.price") from error


def worth(paid: Mapping[str, Price], model: str, usage: Usage | None) -> float:
    """USD that an answer would have cost at the large model."""
    return paid[model].of(usage)


def used_engines(config: Config) -> list[str]:
    """Names of the engines that some route or specialist asks, each once."""
    large = (name for route in config.routes.values() for name in route.engines)
    return list(dict.fromkeys((*large, *(each.engine for each in config.specialists.values()))))


def kept_answers(config: Config, rules: Mapping[str, Rule]) -> Exact:
    """The exact cache: memory in front of a store, or alone. Raises ConfigError."""
    memory: Memory[Held] = Memory(config.cache.memory_bytes, fairly(lru))
    store = None if not (config.cache.path or config.cache.url or config.semantic) else shared(config)
    longest_s = max(each.terms.longest_s() for each in rules.values())
    alone = config.server.workers == 1 and not config.cache.url
    return Exact(memory, store, Tags(store, keep_s=longest_s, shared=not alone))


def allowance(config: Config, exact: Exact) -> Allowance | None:
    """What one principal may have written into the store; whoever is alone may fill it."""
    return Allowance(int(config.cache.file_bytes * SHARE), exact.tags.keep_s) if len(config.keys) > 1 else None


def shared(config: Config) -> Store:
    """The store that processes share. Raises ConfigError where it cannot be opened."""
    cache = config.cache
    try:
        return opened_store(cache)
    except StoreError as error:
        raise ConfigError(str(error), field="cache.url" if cache.url else "cache.path") from error


def opened_store(cache: CacheSection) -> Store:
    """A file, or a server. Raises StoreError."""
    if not cache.url and cache.path:
        return Sqlite(cache.path, limit_bytes=cache.file_bytes, flush_ms=cache.flush_ms)
    from stepwell.store.url import store_at  # noqa: PLC0415 - servers need an extra

    return store_at(
        cache.url,
        limit_bytes=cache.memory_bytes,
        flush_ms=cache.flush_ms,
        password_env=cache.password_env,
        deadline_ms=cache.deadline_ms,
    )


def by_meaning(
    config: Config,
    exact: Exact,
    engines: Mapping[str, Engine],
    worth: Callable[[str, Usage | None], float],
    worker: str,
) -> ByMeaning | None:
    """What answers the same question in other words, where it is configured. Raises ConfigError."""
    if config.semantic is None:
        return None
    try:
        from stepwell.meaning import compose  # noqa: PLC0415 - vectors need the extra
    except ImportError as error:
        raise ConfigError(f"needs {error.name}: pip install 'stepwell[cache]'", field="semantic") from error
    secret = os.environ.get(config.cache.secret_env, "").encode() or DEFAULT_SECRET
    return compose(config, exact, engines, worth, secret=secret, worker=worker)


def specialists(
    config: Config,
    exact: Exact,
    engines: Mapping[str, Engine],
    paid: Mapping[str, Price],
    *,
    meaning: ByMeaning | None,
    worker: str,
) -> Specialists | None:
    """The specialist steps, where some are configured. Raises ConfigError."""
    if not config.specialists:
        return None
    try:
        from stepwell.specialists import compose  # noqa: PLC0415 - verdicts are signed: that needs the extra
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        raise ConfigError(f"needs {name}: pip install 'stepwell[gate]'", field="specialists") from error
    embed, promise = (None, None) if meaning is None else (meaning.embedder.embed, meaning.audits.promise)
    return compose(config, exact, engines, partial(worth, paid), embed=embed, promise=promise, worker=worker)


def told(part: ByMeaning | Specialists | None) -> bytes:
    """The metrics of a part that may not be there."""
    return b"" if part is None else part.metrics()


def templates(config: Config, worth: Callable[[str, Usage | None], float]) -> tuple[Step, ...]:
    """The template step, where a campaign is configured. Raises ConfigError, StoreError, TemplateError."""
    section = config.templates
    if section is None:
        return ()
    try:
        from stepwell.signing import trusted  # noqa: PLC0415
        from stepwell.steps.template import Template  # noqa: PLC0415 - its bundles need the extra
        from stepwell.templates.live import Live  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"needs {error.name}: pip install 'stepwell[templates]'", field="templates") from error
    live = Live(opened(section.url), trusted(section.public_keys), section.refresh_s)
    live.look()
    return (Template(live, section.locale, worth),)


def rule(name: str, route: Route, config: Config) -> Rule:
    """How the answers of one route are kept; a change of its engines makes older answers strangers."""
    asked = msgspec.json.encode([(each, config.engines[each]) for each in route.engines])
    engines = (f"engine:{each}" for each in route.engines)
    return Rule(
        route=asked,
        share=route.share,
        keep=route.cache,
        keep_sampled=route.cache_sampled,
        terms=Terms(ttl_s=route.ttl_s, swr_s=route.swr_s, sie_s=route.sie_s, early=route.early),
        tags=(f"model:{name}", *engines, f"config:{sha256(asked).hexdigest()[:16]}"),
    )


def ids() -> Callable[[], str]:
    """Names for requests, unlike those of every other worker and start."""
    start, numbers = token_hex(8), count()
    return lambda: f"req-{start}-{next(numbers):x}"
