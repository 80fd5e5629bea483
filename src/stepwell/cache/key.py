"""The key of a question: SHA-256, so that no caller can make two questions collide."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

import msgspec

from stepwell.types import Caller, Request

VERSION = 1
"""Raised when the canonical form or the kept form changes: older answers are then never found again."""


def scope(route: bytes, caller: Caller, share: Literal["principal", "tenant"]) -> bytes:
    """Who may share answers, and for what: 32 bytes that stand in front of every canonical request.

    `route` is whatever makes two engines answer differently (their configuration), not only the model's name.
    """
    who = (caller.tenant,) if share == "tenant" else (caller.tenant, caller.principal)
    return sha256(msgspec.json.encode((VERSION, route.hex(), who))).digest()


def key(scope: bytes, request: Request) -> bytes:
    """32 bytes. The scope has a fixed length, so nothing in the request can be read as part of it."""
    return sha256(b"%b%b\0%b" % (scope, request.kind.encode(), request.canonical)).digest()
