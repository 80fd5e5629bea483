"""Several processes at one store: nothing is torn, nothing old wins, and one that is killed leaves nothing broken."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from store.places import SHARED, Place, place_of
from store.writing import NUM_KEYS, read


@pytest.fixture(params=SHARED)
def place(request: Any, tmp_path: Path) -> Place:
    return place_of(request.param, request, tmp_path)


@contextmanager
def writing(place: Place, what: str, name: str) -> Iterator[subprocess.Popen[str]]:
    variable = next(iter(place.environment), "")
    environment = {**os.environ, **place.environment, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "store.writing", place.url, variable, what, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        yield process
        process.kill()


async def test_a_writer_that_is_killed_leaves_nothing_broken(place: Place) -> None:
    name = f"killed {time.time_ns()}"
    for _ in range(3):
        with writing(place, "storm", name) as process:
            assert process.stdout is not None
            for _ in range(60):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    store = place.open()
    found = [await store.get(b"%b key %d" % (name.encode(), number)) for number in range(NUM_KEYS)]
    said = [read(each[0]).decode() for each in found if each is not None]
    assert all(each.startswith(name) for each in said)
    assert len(said) == NUM_KEYS
    rows = await store.since(name.encode(), 0, 10_000)
    numbers = [int(read(row).rsplit(b" ", 1)[1]) for _, row in rows]
    starts = [index for index, number in enumerate(numbers) if number == 0]
    assert len(starts) == 3
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        assert numbers[start:end] == list(range(end - start))
    await asyncio.sleep(0.6)
    assert all([await store.lease(b"%b key %d" % (name.encode(), number), 1) for number in range(NUM_KEYS)])
    await store.close()


async def test_two_processes_that_write_one_key_never_tear_it_and_the_last_lease_wins(place: Place) -> None:
    store = place.open()
    fences: list[int] = []
    seen: list[int] = []
    with writing(place, "fight", "anna") as anna, writing(place, "fight", "bert") as bert:
        while anna.poll() is None or bert.poll() is None:
            for key in (b"plain", b"fenced"):
                found = await store.get(key)
                if found is not None and key == b"fenced":
                    seen.append(int(read(found[0])))
                elif found is not None:
                    assert read(found[0]).split()[0] in (b"anna", b"bert")
            await asyncio.sleep(0.002)
        for process in (anna, bert):
            assert process.stdout is not None
            fences += map(int, process.stdout.read().split())
            assert process.returncode == 0
    assert len(fences) == len(set(fences))
    assert seen == sorted(seen)
    assert set(seen) <= set(fences)
    assert seen[-1] >= sorted(fences)[-2]
    await store.close()
