"""What the ledger's tests are made of: settled requests, and books that write them down."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from msgspec.structs import astuple

from stepwell.ledger import prices
from stepwell.ledger.book import Book
from stepwell.ledger.entry import entry
from stepwell.ledger.file import File
from stepwell.types import Answer, Caller, Outcome, Request, Settled, Usage, Visit

PRICES = prices.load()
USAGE = Usage(100, 50)
PRICE = prices.price_of(PRICES, "gpt-4o-mini")


def settled(
    number: int = 0,
    *,
    step: str = "large",
    tenant: str = "acme",
    seconds: float = 0.01,
    usage: Usage | None = USAGE,
    stream: bool = False,
    error: Exception | None = None,
) -> Settled:
    request = Request(
        id=f"req-{number}",
        kind="chat",
        caller=Caller(tenant, "p"),
        model="well",
        body=b"{}",
        canonical=b"{}",
        stream=stream,
    )
    complete = bool(step) and error is None
    visits = (
        Visit("cache", "answered" if step == "cache" else "deferred", "hit" if step == "cache" else "miss", 0.001),
    )
    if step != "cache":
        visits = (*visits, Visit("large", "answered" if step else "failed", "up", 0.005))
    answer = Answer(form="json", body=b"{}", usage=usage, engine="up") if step else None
    return Settled(
        request=request,
        outcome=Outcome(answer, visits, error),
        form="json",
        body=b"{}",
        usage=usage if step else None,
        complete=complete,
        status=200 if complete else 502,
        seconds=seconds,
    )


def book(path: Path, **more: object) -> Book:
    wanted = {"flush_ms": 10, "max_waiting": 1000, "watch": lambda _entry, _visits: None, **more}
    return Book(path, {"well": PRICE}, **wanted)  # type: ignore[arg-type]


def write(path: Path, *told: Settled) -> None:
    file = File(path)
    file.write([astuple(entry(each, PRICE, time.time())) for each in told])
    file.close()


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM entries").fetchall()


async def wait(check: Callable[[], object]) -> None:
    end_s = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


def asides(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.damaged-*"))
