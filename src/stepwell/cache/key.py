"""Who a question is, three times over: `exact`, `compat` (all but its last text), `partition` (whose it is).

SHA-256 throughout, so that no caller can make two questions collide; who asks comes from the authenticated key, never
from the text.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Literal

import msgspec
from msgspec import Struct

from stepwell.engines.texts import last_text
from stepwell.types import Caller, Request

VERSION = 3
"""Raised when the canonical form or the kept form changes: older answers are then never found again."""
Share = Literal["principal", "tenant", "public"]


class Identity(Struct, frozen=True, gc=False):
    """What a question is to the part of the cache that goes by meaning."""

    exact: bytes
    partition: bytes
    """Keyed hash over scope, kind, embedder and everything in the question but its last text."""
    text: str
    """The last text of the user: what is embedded."""
    principal: bytes
    """Who asks, as a keyed hash."""


def scope(route: bytes, caller: Caller, share: Share) -> bytes:
    """Who may share answers, and for what: 32 bytes that stand in front of every canonical request.

    `route` is whatever makes two engines answer differently (their configuration), not only the model's name.
    """
    who = {"principal": (caller.tenant, caller.principal), "tenant": (caller.tenant,), "public": ()}[share]
    return sha256(msgspec.json.encode((VERSION, route.hex(), who))).digest()


def key(scope: bytes, request: Request) -> bytes:
    """32 bytes. The scope has a fixed length, so nothing in the request can be read as part of it."""
    return sha256(b"%b%b\0%b" % (scope, request.kind.encode(), request.canonical)).digest()


def identity(scope: bytes, exact: bytes, request: Request, *, embedder: str, secret: bytes) -> Identity | str:
    """The identity of a question that can be looked up by meaning; else the reason why it cannot."""
    asked = last_text(request)
    if isinstance(asked, str):
        return asked
    named = (request.kind.encode(), embedder.encode(), sha256(asked.rest).digest())
    who = msgspec.json.encode((request.caller.tenant, request.caller.principal))
    return Identity(
        exact=exact,
        partition=hmac.digest(secret, b"partition\0" + scope + b"\0".join(named), "sha256"),
        text=asked.text,
        principal=hmac.digest(secret, b"principal\0" + who, "sha256")[:16],
    )
