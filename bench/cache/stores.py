"""What each store costs: CPU of a get, a put, a lease and a row of a log, with a real server where there is one.

Values are 2 kB of chance under keys of 33 bytes, as the cache keeps them; every store checks or guards its values. The
CPU is this process's, all threads, writing included; a server's own CPU stands beside it. LMDB stands beside SQLite
as a store would be made of it, with the same checksum and writes in batches.

    python -m bench.cache.stores
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from struct import Struct
from typing import Any

import lmdb

from bench.cpu import cpu_s
from stepwell.protocols import Store
from stepwell.store.url import store_at

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tests"))
from servers import Missing, PostgresServer, RedisServer, Server

NUM_KEYS, NUM_ASKED, NUM_LEASES, TOGETHER, RUNS = 20_000, 5_000, 300, 100, 5
VALUE_BYTES, ROW_BYTES = 2_000, 1_000
HEAD = Struct("<dI")
"""Expiry and checksum, in front of a value in LMDB."""

chance = random.Random(1)
KEYS = [b"a" + chance.randbytes(32) for _ in range(NUM_KEYS)]
ASKED = chance.sample(KEYS, NUM_ASKED)
VALUE, ROW = chance.randbytes(VALUE_BYTES), chance.randbytes(ROW_BYTES)


class Lmdb:
    """The part of a Store that is compared: get, and put in batches of what came in `flush_ms`."""

    name = "lmdb"

    def __init__(self, path: str) -> None:
        self.file = lmdb.open(path, map_size=1 << 30, subdir=False, metasync=False)
        self.waiting: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        """Value and expiry, or None."""
        with self.file.begin() as reading:
            kept = reading.get(key)
        if kept is None:
            return None
        (expires_s, crc), value = HEAD.unpack_from(kept), kept[HEAD.size :]
        return (value, expires_s) if expires_s > time.time() and zlib.crc32(value, zlib.crc32(key)) == crc else None

    async def put(self, key: bytes, value: bytes, expires_s: float) -> None:
        """Take a value along with the next batch."""
        self.waiting[key] = HEAD.pack(expires_s, zlib.crc32(value, zlib.crc32(key))) + value
        if len(self.waiting) >= 500:
            self.flush()

    def flush(self) -> None:
        """Write what waits, in one transaction."""
        with self.file.begin(write=True) as writing:
            for key, value in self.waiting.items():
                writing.put(key, value)
        self.waiting = {}

    async def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        self.file.close()


def measure() -> dict[str, float]:
    """`store_{get,put,…}_us_{backend}`: CPU microseconds a call in this process, medians of five runs."""
    found: dict[str, float] = {}
    for name, place in places():
        with place as (make, server):
            costs = asyncio.run(cost(make, server, full="lmdb" not in name))
        found |= {f"store_{what}_{name}": round(value, 2) for what, value in costs.items()}
        print(name, json.dumps({what: round(value, 1) for what, value in costs.items()}), flush=True)
    return found


async def cost(make: Callable[[], Any], server: int, *, full: bool) -> dict[str, float]:
    """CPU of each kind of call; `server` is the process id of one, or 0."""
    store = make()
    await store.get(KEYS[0])
    expires_s = time.time() + 3600
    begun_s = time.process_time()
    for key in KEYS:
        await store.put(key, VALUE, expires_s)
    await store.close()
    found = {"put_us": (time.process_time() - begun_s) / NUM_KEYS * 1e6}
    store = make()
    for what, call, asked in calls(store, expires_s, full=full):
        costs = [await once(call, asked, server) for _ in range(RUNS)]
        found[f"{what}_us"] = median(own for own, _ in costs)
        if server:
            found[f"{what}_server_us"] = median(theirs for _, theirs in costs)
    await store.close()
    return found


Call = Callable[[list[bytes]], Awaitable[Any]]


def calls(store: Store, expires_s: float, *, full: bool) -> Iterator[tuple[str, Call, list[bytes]]]:
    """What is measured: its name, the call, and what it is called with."""

    async def one_by_one(ask: Callable[[bytes], Awaitable[Any]], asked: list[bytes]) -> None:
        for each in asked:
            await ask(each)

    async def together(asked: list[bytes]) -> None:
        for start in range(0, len(asked), TOGETHER):
            await asyncio.gather(*map(store.get, asked[start : start + TOGETHER]))

    async def lease(key: bytes) -> None:
        fence = await store.lease(key, 60)
        await store.put(key, VALUE, expires_s, fence or 0)
        await store.release(key, fence or 0)

    async def append(_key: bytes) -> None:
        await store.append(b"log", ROW, expires_s)

    yield "get", lambda asked: one_by_one(store.get, asked), ASKED
    yield "miss", lambda asked: one_by_one(store.get, asked), [key + b"?" for key in ASKED]
    yield "get_of_100", together, ASKED
    if full:
        yield "lease_put_release", lambda asked: one_by_one(lease, asked), ASKED[:NUM_LEASES]
        yield (
            "append",
            lambda asked: one_by_one(lambda _: store.append(b"log", ROW, expires_s), asked),
            ASKED[:NUM_LEASES],
        )


async def once(call: Call, asked: list[bytes], server: int) -> tuple[float, float]:
    """CPU microseconds a call: this process's, and the server's."""
    theirs_s, own_s = cpu_s(server) if server else 0.0, time.process_time()
    await call(asked)
    own_s = time.process_time() - own_s
    return own_s / len(asked) * 1e6, (cpu_s(server) - theirs_s) / len(asked) * 1e6 if server else 0.0


Place = AbstractContextManager[tuple[Callable[[], Any], int]]


def places() -> Iterator[tuple[str, Place]]:
    """Each backend: a context that gives what opens it, and its server's process id."""
    yield "memory", local("memory")
    for kind in ("sqlite", "lmdb"):
        yield kind, local(kind)
        yield f"{kind}_shared", local(kind, shared=True)
    for kind, server in (("redis", RedisServer), ("postgres", partial(PostgresServer, fsync=True))):
        try:
            yield kind, remote(server())
        except Missing as missing:
            print(missing)


def opened(kind: str, folder: str) -> Any:
    """A store of this process or on this disk."""
    if kind == "lmdb":
        return Lmdb(f"{folder}/store.lmdb")
    return store_at(f"{folder}/store.db" if kind == "sqlite" else "", limit_bytes=1 << 30, flush_ms=200)


@contextmanager
def local(kind: str, *, shared: bool = False) -> Iterator[tuple[Callable[[], Any], int]]:
    """`shared`: another process writes to it all the time."""
    with tempfile.TemporaryDirectory() as folder:
        only = opened(kind, folder) if kind == "memory" else None
        command = [sys.executable, "-m", "bench.cache.stores", kind, folder]
        writer = subprocess.Popen(command) if shared else None
        try:
            yield (lambda: only or opened(kind, folder)), 0
        finally:
            if writer is not None:
                writer.kill()
                writer.wait()


@contextmanager
def remote(server: Server) -> Iterator[tuple[Callable[[], Any], int]]:
    """A server of our own, with room for slow moments."""
    variable = "BENCH_STORE_PASSWORD" if isinstance(server, PostgresServer) else ""
    os.environ["BENCH_STORE_PASSWORD"] = PostgresServer.password
    many = {"limit_bytes": 1, "flush_ms": 1, "deadline_ms": 10_000}
    try:
        process = server.start()
        yield (lambda: store_at(server.url, password_env=variable, **many)), process.pid
    finally:
        server.close()


async def write_on(kind: str, folder: str) -> None:
    """Put 1,000 values a second, until killed."""
    store = opened(kind, folder)
    while True:
        for _ in range(10):
            await store.put(chance.randbytes(33), VALUE, time.time() + 3600)
        await asyncio.sleep(0.01)


def main() -> None:
    """Print the table, then one JSON object."""
    if len(sys.argv) > 1:
        asyncio.run(write_on(*sys.argv[1:3]))
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    print(f"{versions}, LMDB {lmdb.version()}")
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
