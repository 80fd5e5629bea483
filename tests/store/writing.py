"""Another process at a store: `python writing.py URL VARIABLE storm|fight NAME`. Everything it writes proves itself."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from itertools import count

from stepwell.protocols import Store
from store.places import opened

NUM_KEYS, NUM_FIGHTS = 40, 60


def proved(text: bytes) -> bytes:
    """A value that shows whether it is whole: 4 kB and their digest."""
    body = (text + b"|") * (4096 // (len(text) + 1))
    return sha256(body).digest() + body


def read(value: bytes) -> bytes:
    """What a whole value says; one that is not whole fails the test."""
    assert sha256(value[32:]).digest() == value[:32], "a value is not whole"
    return value[32:].partition(b"|")[0]


async def storm(store: Store, name: bytes) -> AsyncIterator[str]:
    """Write until killed; say what was written."""
    for number in count():
        text = b"%b %d" % (name, number)
        key = b"%b key %d" % (name, number % NUM_KEYS)
        fence = await store.lease(key, 0.5)
        await store.put(key, proved(text), time.time() + 3600, fence or 0)
        await store.append(name, proved(text), time.time() + 3600)
        if number % 3 and fence:
            await store.release(key, fence)
        yield f"{number}"


async def fight(store: Store, name: bytes) -> AsyncIterator[str]:
    """Put into one key, with and without a lease; say which fences were held."""
    for number in range(NUM_FIGHTS):
        await store.put(b"plain", proved(b"%b %d" % (name, number)), time.time() + 3600)
        fence = await store.lease(b"fenced", 0.02)
        if fence is not None:
            await asyncio.sleep(0.03 if number % 4 == 0 else 0)  # sometimes too long: the lease has passed on
            await store.put(b"fenced", proved(b"%d" % fence), time.time() + 3600, fence)
            await store.release(b"fenced", fence)
            yield f"{fence}"
        await asyncio.sleep(0.001)


async def main(url: str, variable: str, what: str, name: str) -> None:
    store = opened(url, variable)
    async for line in (storm if what == "storm" else fight)(store, name.encode()):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
