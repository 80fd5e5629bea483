"""Where the same promises are tested: every kind of store, opened as often as a test likes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import PostgresServer
from stepwell.protocols import Store
from stepwell.store.url import store_at

KINDS = ("memory", "sqlite", "redis", "postgres")
SHARED = ("sqlite", "redis", "postgres")
PATIENT_MS = 10_000
"""Tests do not fail because the machine is busy."""


@dataclass(frozen=True)
class Place:
    """A kind of store, and how another process gets there."""

    kind: str
    url: str
    environment: dict[str, str]
    open: Callable[[], Store]


def place_of(kind: str, request: Any, folder: Path) -> Place:
    """`request` is pytest's: it starts the server."""
    if kind == "memory":
        only = store_at("", limit_bytes=100_000_000, flush_ms=5)
        return Place(kind, "", {}, lambda: only)
    url, variable, password = str(folder / "store.db"), "", ""
    if kind == "redis":
        url = request.getfixturevalue("redis_server").url
    if kind == "postgres":
        server = request.getfixturevalue("postgres_server")
        url, variable, password = server.url, "STORE_PASSWORD", PostgresServer.password
        os.environ[variable] = password
    return Place(kind, url, {variable: password} if variable else {}, lambda: opened(url, variable))


def opened(url: str, variable: str = "", deadline_ms: int = PATIENT_MS) -> Store:
    return store_at(url, limit_bytes=100_000_000, flush_ms=5, password_env=variable, deadline_ms=deadline_ms)
