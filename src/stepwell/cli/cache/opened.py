"""The store of the configuration, opened beside the gateways that use it; who asks; and what its logs say."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.cache.exact import Exact
from stepwell.cache.key import key, scope
from stepwell.cache.rows import AnswerRow, KeyRow
from stepwell.cache.tags import tag_of
from stepwell.cli import explain
from stepwell.config import Config
from stepwell.errors import BadRequest, ConfigError, StoreError
from stepwell.gateway import admit, openai
from stepwell.index.rows import KEYS, KeyAdded
from stepwell.protocols import Store
from stepwell.quality.promise import LEAST_RIGHT
from stepwell.steps.below import Rule
from stepwell.steps.public import partition
from stepwell.types import Caller, Case, Request
from stepwell.well import kept_answers, rule

ROWS_A_TURN = 1000
NAME_DIGITS = 64

key_rows = msgspec.msgpack.Decoder(KeyRow)
answer_rows = msgspec.msgpack.Decoder(AnswerRow)
added_rows = msgspec.msgpack.Decoder(KeyAdded)


class Opened(Struct, frozen=True):
    """An open store and what the configuration says of its routes."""

    exact: Exact
    store: Store
    rules: dict[str, Rule]

    @property
    def keep_s(self) -> float:
        """The longest that any answer lives."""
        return self.exact.tags.keep_s


class Nearest(Struct, frozen=True):
    """What the search by meaning found for a request: the kept wording, and how sure the promise is of its answer."""

    wording: str
    cosine: float
    right: float
    """The probability that its answer is right: 0 where it would never be served."""
    step: str
    """Under which the promise learns of such answers."""
    features: tuple[float, ...]
    case: Case


class Kept(Struct, frozen=True):
    """One kept answer, as an operator sees it."""

    name: str
    row: AnswerRow
    expires_s: float
    state: str
    """fresh, stale or invalidated."""
    nearest: Nearest | None = None
    """Where it was found by meaning."""


def add_config(parser: argparse.ArgumentParser) -> None:
    """Every subcommand works on the store of a configuration, and can speak JSON."""
    parser.add_argument("--config", type=Path, default=Path("stepwell.toml"), help="default: stepwell.toml")
    parser.add_argument("--json", action="store_true")


def add_caller(parser: argparse.ArgumentParser) -> None:
    """Answers belong to whoever asked."""
    parser.add_argument("--tenant", help="as this tenant's; default: the first key of the file")
    parser.add_argument("--principal", default="", help="as this principal's; default: the tenant's first key")


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Opened]:
    """Open the store, with all that was invalidated in it. Raises ConfigError and StoreError."""
    check(config)
    rules = {name: rule(name, route, config) for name, route in config.routes.items()}
    exact = kept_answers(config, rules)
    try:
        await exact.tags.ready()
        assert exact.store is not None  # noqa: S101 - checked above
        yield Opened(exact, exact.store, rules)
    finally:
        await exact.close()


def check(config: Config) -> None:
    """Nothing is opened that no gateway has made. Raises ConfigError and StoreError."""
    cache = config.cache
    if not cache.path and not cache.url:
        raise ConfigError(
            "empty: answers and labels live in the running gateway's memory only, where nobody can look",
            field="cache.path",
        )
    if not cache.url and not Path(cache.path).exists():
        raise StoreError(f"there is no cache at {cache.path}; start `stepwell serve`, or name another configuration")


def request_of(given: argparse.Namespace, config: Config, file: Path) -> Request:
    """The request of a file, as its caller asks it. Raises BadRequest and UnknownModel."""
    body = explain.read(file)
    request = openai.parse(explain.kind_of(body), body, id="cli", caller=caller_of(given, config), started_s=0.0)
    admit.model(request.model, config.routes)
    return request


def caller_of(given: argparse.Namespace, config: Config) -> Caller:
    """Who asks. Raises BadRequest."""
    who = explain.asking(config, given.tenant)
    return Caller(who.tenant, given.principal) if given.principal else who


def own(request: Request, rule: Rule) -> tuple[bytes, bytes]:
    """Who shares the caller's own answers, and the digest of this one."""
    whose = scope(rule.route, request.caller, "principal" if rule.share == "public" else rule.share)
    return whose, key(whose, request)


def digests(request: Request, rule: Rule) -> dict[str, bytes]:
    """Where an answer may lie: the caller's own, and everybody's."""
    _, exact = own(request, rule)
    if rule.share != "public":
        return {rule.share: exact}
    return {"principal": exact, "public": key(partition(rule.route), request)}


async def answer_at(at: Opened, exact: bytes) -> Kept | None:
    """The answer of a digest, whatever its state."""
    found = await at.store.get(b"k" + exact)
    return None if found is None else await answer_named(at, key_rows.decode(found[0]).answer)


async def answer_named(at: Opened, name: bytes) -> Kept | None:
    """An answer by its name, whatever its state."""
    found = await at.store.get(b"a" + name)
    if found is None:
        return None
    row = answer_rows.decode(found[0])
    dead = at.exact.tags.dead((*row.tags, tag_of(name)), row.position)
    state = "invalidated" if dead else "stale" if row.stale_s <= time() else "fresh"
    return Kept(name.hex(), row, found[1], state)


def name_in(text: str) -> bytes | None:
    """An answer's name, where a text is one."""
    is_name = len(text) == NAME_DIGITS and set(text.lower()) <= set("0123456789abcdef")
    return bytes.fromhex(text) if is_name else None


async def meant(at: Opened, given: argparse.Namespace, config: Config, text: str) -> dict[str, Kept]:
    """The answers that an argument means: a name, or a file with a request. Raises BadRequest where there is none."""
    name = name_in(text)
    if name is not None:
        found = there({"named": await answer_named(at, name)})
    else:
        request = request_of(given, config, Path(text))
        exact = digests(request, at.rules[request.model])
        found = there({whose: await answer_at(at, each) for whose, each in exact.items()})
        if config.semantic is not None and all(each.state == "invalidated" for each in found.values()):
            found |= await by_meaning(at, config, request, needed=not found)
    if not found:
        raise BadRequest(f"{text}: no answer is kept; another --tenant or --principal may have one")
    return found


def there(kept: dict[str, Kept | None]) -> dict[str, Kept]:
    """Without those that are none."""
    return {whose: each for whose, each in kept.items() if each is not None}


async def by_meaning(at: Opened, config: Config, request: Request, *, needed: bool) -> dict[str, Kept]:
    """What a gateway may have given for it; with `needed`, BadRequest says what is nearest where that is not it."""
    try:
        from stepwell.cli.cache.by_meaning import nearest  # noqa: PLC0415 - vectors need the extra
    except ImportError as error:
        raise ConfigError(f"needs {error.name}: pip install 'stepwell[cache]'", field="semantic") from error
    found = await nearest(at, config, request)
    kept = None if found is None else await answer_named(at, found.case.answer)
    if found is None or kept is None:
        return {}
    if found.right >= LEAST_RIGHT:
        return {"by meaning": msgspec.structs.replace(kept, nearest=found)}
    if not needed:
        return {}
    near = f"the nearest is {kept.name} to {found.wording!r}, at cosine {found.cosine:.2f}"
    raise BadRequest(f"no answer is kept; {near}, which would not be given (p = {found.right:.3f})")


async def rows_of(store: Store, log: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> AsyncIterator[Any]:
    """Every living row of a log, oldest first; one that cannot be read is left out."""
    position = 0
    while rows := await store.since(log, position, ROWS_A_TURN):
        position = rows[-1][0]
        for _, row in rows:
            try:
                yield decoder.decode(row)
            except msgspec.DecodeError:
                continue


async def wordings(store: Store) -> dict[bytes, list[KeyAdded]]:
    """The questions that lead to each answer, as far as they are known: see `[semantic]`."""
    found: dict[bytes, list[KeyAdded]] = {}
    async for row in rows_of(store, KEYS, added_rows):
        found.setdefault(row.answer, []).append(row)
    return found
