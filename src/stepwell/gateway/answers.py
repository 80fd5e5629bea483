"""Public answers by address, so that any CDN or nginx can give them (docs/digest.md): GET /q, /q/…/…, /a/….

The words are those of RFC 9110 (validators), 9111 (freshness), 5861 (stale), 9211 (Cache-Status), 9213 (CDNs apart).
Whoever asks is given the same bytes: no key is looked at, and nothing in these replies is about the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from stepwell.cache.public import Found, by_hash, by_question
from stepwell.errors import AdmitError, StepwellError, StoreError
from stepwell.gateway import openai, pages
from stepwell.gateway.clock import http_date
from stepwell.gateway.exchange import Exchange
from stepwell.steps.below import Rule
from stepwell.steps.public import Public as Everybodys

if TYPE_CHECKING:
    from stepwell.gateway.answer import Door

YEAR_S = 31_536_000
MISS_S = 5
"""How long a cache in front may remember that there is no answer."""
ERROR_S = 3600
"""How long it may give an old one where the gateway fails."""
DIGEST_DIGITS = 64
MOST_TAG_BYTES = 4096


class Route(Struct, frozen=True):
    """What a client needs to know to compute the digests of a route."""

    partition: str
    sampled: bool
    """Whether answers at a temperature above 0 are kept."""


class Public(Struct, frozen=True, kw_only=True):
    """Where public answers are found; see `addresses`."""

    routes: Mapping[str, Route]
    by_question: Callable[[bytes, bytes], Awaitable[Found | None]]
    """Partition, digest."""
    by_hash: Callable[[bytes], Awaitable[Found | str]]
    max_age_s: float
    swr_s: float


def addresses(side: Everybodys | None, rules: Mapping[str, Rule], max_age_s: float) -> Public | None:
    """Where the public answers of some routes are found; None where no route has any."""
    if side is None:
        return None
    terms = {whose: rules[name].terms for name, whose in side.partitions.items()}
    return Public(
        routes={name: Route(whose.hex(), rules[name].keep_sampled) for name, whose in side.partitions.items()},
        by_question=lambda whose, digest: by_question(side.exact, whose, digest, terms),
        by_hash=lambda body_sha256: by_hash(side.exact, frozenset(terms), body_sha256),
        max_age_s=max_age_s,
        swr_s=max_age_s,
    )


class Missing(AdmitError):  # noqa: N818 - a word like its siblings in errors.py
    """No public answer has this address."""

    status = 404
    code = "not_found"


class Gone(Missing):
    """It was public once, and was invalidated."""

    status = 410
    code = "gone"


def asks(path: bytes) -> bool:
    """Say whether a path is one of an answer."""
    return path == b"/q" or path.startswith((b"/q/", b"/a/"))


async def show(door: Door, public: Public, exchange: Exchange, path: bytes) -> None:
    """Answer one GET or HEAD; what is not there is not there for a few seconds only."""
    if exchange.method not in (b"GET", b"HEAD"):
        pages.wrong_method(door, exchange, b"GET, HEAD")
        return
    try:
        await found(public, exchange, path)
    except Missing as error:
        refuse(exchange, error, f"public, max-age={MISS_S}")
    except StoreError as error:
        refuse(exchange, Unavailable(str(error)), "no-store")


class Unavailable(StepwellError):  # noqa: N818 - as above
    """The store does not answer: a cache in front may give what it has."""

    status = 503
    code = "store_unavailable"


async def found(public: Public, exchange: Exchange, path: bytes) -> None:
    """Reply with what is at a path. Raises Missing and StoreError."""
    match path.split(b"/")[1:]:
        case [b"q"]:
            give_routes(public, exchange)
        case [b"q", partition, digest]:
            answer = await public.by_question(binary(partition), binary(digest))
            if answer is None:
                raise Missing("no public answer to this question: POST it")
            give_for_a_while(public, exchange, answer)
        case [b"a", name]:
            kept = await public.by_hash(binary(name))
            if isinstance(kept, str):
                raise Gone("this answer was withdrawn") if kept == "gone" else Missing("no public answer has this hash")
            give(exchange, kept, f"public, max-age={YEAR_S}, immutable", "")
        case _:
            raise Missing("answers are at /q/PARTITION/DIGEST and /a/SHA256")


def binary(name: bytes) -> bytes:
    """Read 64 hexadecimal digits, in lower case: one address an answer. Raises Missing."""
    if len(name) != DIGEST_DIGITS or not set(name) <= set(b"0123456789abcdef"):
        raise Missing("a digest is 64 hexadecimal digits in lower case")
    return bytes.fromhex(name.decode())


def give_routes(public: Public, exchange: Exchange) -> None:
    """Tell the partitions, for a minute at most."""
    body = msgspec.json.encode({"routes": public.routes})
    reply(exchange, body, f"Cache-Control: public, max-age={min(60, int(public.max_age_s))}\r\n")


def give_for_a_while(public: Public, exchange: Exchange, answer: Found) -> None:
    """Reply with an answer for as long as it is fresh, and no longer than configured."""
    age_s = max(0.0, min(public.max_age_s, answer.stale_s - time()))
    terms = f"public, max-age={int(age_s)}, stale-while-revalidate={int(public.swr_s)}"
    give(exchange, answer, terms, f"{terms}, stale-if-error={ERROR_S}")


def give(exchange: Exchange, answer: Found, terms: str, cdn_terms: str) -> None:
    """Reply with one answer, or say that the caller has it."""
    names = tag_names(answer.tags)
    lines = [f"Cache-Control: {terms}", f"CDN-Cache-Control: {cdn_terms or terms}", "Cache-Status: stepwell; hit"]
    if names:
        lines += [f"Surrogate-Key: {' '.join(names)}", f"Cache-Tag: {','.join(names)}"]
    reply(exchange, answer.body, "".join(f"{line}\r\n" for line in lines))


def tag_names(tags: tuple[str, ...]) -> list[str]:
    """How the tags of an answer are called outside: hashed, for engines and documents are nobody's business."""
    return [surrogate_key(tag) for tag in tags][: MOST_TAG_BYTES // 17]


def surrogate_key(tag: str) -> str:
    """The name by which a CDN purges a tag."""
    return sha256(tag.encode()).hexdigest()[:16]


def reply(exchange: Exchange, body: bytes, lines: str) -> None:
    """Write a page whose strong validator is the hash of its bytes."""
    etag = f'"{sha256(body).hexdigest()}"'
    head = (
        f"Content-Type: application/json\r\nDate: {http_date().decode()}\r\nETag: {etag}\r\n{lines}"
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: ETag, Age, Cache-Status\r\n"
        "X-Content-Type-Options: nosniff\r\n"
    ).encode()
    if has_it(exchange.headers.get(b"if-none-match", b""), etag.encode()):
        exchange.unchanged(head)
    else:
        exchange.reply(200, head, body)


def has_it(if_none_match: bytes, etag: bytes) -> bool:
    """Compare weakly, as RFC 9110, 13.1.2 says of If-None-Match."""
    told = [each.strip().removeprefix(b"W/") for each in if_none_match.split(b",")]
    return etag in told or told == [b"*"]


def refuse(exchange: Exchange, error: StepwellError, terms: str) -> None:
    """Say that there is nothing, and for how long that may be believed."""
    head = (
        f"Content-Type: application/json\r\nDate: {http_date().decode()}\r\nCache-Control: {terms}\r\n"
        "Access-Control-Allow-Origin: *\r\n"
    )
    exchange.reply(error.status, head.encode(), openai.error_body(error))
