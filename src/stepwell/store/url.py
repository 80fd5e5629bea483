"""The Store at a URL or path: memory, a SQLite file, Redis or PostgreSQL. A password never stands in it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from stepwell.errors import StoreError
from stepwell.protocols import Store
from stepwell.store.memory_store import MemoryStore
from stepwell.store.sqlite import Sqlite

SERVERS = {"redis": "redis", "rediss": "redis", "postgres": "postgres", "postgresql": "postgres"}


def store_at(url: str, *, limit_bytes: int, flush_ms: int, password_env: str = "", deadline_ms: int = 50) -> Store:
    """Open a store: empty for memory, a path, redis://, rediss://, postgres:// or postgresql://.

    `limit_bytes` and `flush_ms` are those of memory and file, `deadline_ms` how long a reply of a server is waited for.
    The password is the value of the environment variable `password_env`. Raises StoreError.
    """
    if not url:
        return MemoryStore(limit_bytes)
    if "://" not in url:
        return Sqlite(url, limit_bytes=limit_bytes, flush_ms=flush_ms)
    scheme, password = checked(url, password_env)
    try:
        if SERVERS[scheme] == "redis":
            from stepwell.store.redis import Redis  # noqa: PLC0415 - an extra

            return Redis(url, password=password, deadline_s=deadline_ms / 1000)
        from stepwell.store.postgres import Postgres  # noqa: PLC0415 - an extra

        return Postgres(url, password=password, deadline_s=deadline_ms / 1000)
    except ImportError as error:
        raise StoreError(f"a store at {scheme}:// needs an extra: pip install 'stepwell[{SERVERS[scheme]}]'") from error


def checked(url: str, password_env: str) -> tuple[str, str]:
    """Scheme and password. Raises StoreError, which never repeats what may be a secret."""
    try:
        parts = urlsplit(url)
        scheme, inside, _ = parts.scheme, parts.password or "password=" in parts.query, parts.port
    except ValueError as error:
        raise StoreError(f"the store's URL cannot be read ({error}): scheme://user@host:port/database") from None
    if scheme not in SERVERS:
        known = ", ".join(f"{each}://" for each in SERVERS)
        raise StoreError(f"no store speaks {scheme}://: give a path, or one of {known}")
    if inside:
        raise StoreError("the store's URL holds a password: put it into a variable, name that in cache.password_env")
    password = os.environ.get(password_env, "") if password_env else ""
    if password_env and not password:
        raise StoreError(f"the environment variable {password_env} is not set; export the store's password")
    return scheme, password
