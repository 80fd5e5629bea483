"""What serving from the cache costs, in this process, from the bytes of a request to the bytes of its reply.

`exact_hit_us_p99`: CPU of one exact hit until its reply is written to the connection: body parsed, key made, tags and
freshness compared, head made; a hit during which the kernel gave the core to another process does not count, for its
caches are then another's. What follows a reply (ledger, metrics) is in `exact_hit_us_whole`, a mean of all.
`coalesced_calls`: calls that a thousand equal requests make upstream, half of them streams. Beside them, for the
record: what a miss costs that leads, more than one that bypasses the cache; and how long after its leader's a
follower's first words are written, which is what a thousand writes cost.

    python -m bench.cache.serving
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.cpu import machine
from stepwell.config import parse
from stepwell.drive import Drive
from stepwell.gateway.answer import serve
from stepwell.gateway.exchange import Exchange
from stepwell.well import Well, build

NUM_QUESTIONS, NUM_HITS, RUNS = 500, 4_000, 7
NUM_MISSES = 1_500
NUM_EQUAL = 1_000
CONFIG = """
[engines.quick]
type = "scripted"
reply = "The well is deep, and its water is cool."

[engines.slow]
type = "scripted"
reply = "The well is deep, and its water is cool."
delay_s = 0.2
frame_delay_s = 0.02

[routes.kept]
engines = ["quick"]
price = "gpt-4o-mini"

[routes.passed]
engines = ["quick"]
price = "gpt-4o-mini"
cache = false

[routes.slow]
engines = ["slow"]
price = "gpt-4o-mini"

[cache]
path = "{folder}/cache.db"

[ledger]
path = "{folder}/ledger.db"
"""


class Line:
    """A caller's connection, as far as an exchange looks at it: remembers what was written, and when."""

    writable = None

    def __init__(self) -> None:
        self.transport = self
        self.num_writes = 0
        self.first_s = self.first_cpu_s = 0.0
        self.text = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        """One write to the socket."""
        if not self.num_writes:
            self.first_s, self.first_cpu_s = time.perf_counter(), time.thread_time()
        self.num_writes += 1
        self.text += data

    def finished(self, _exchange: Exchange) -> None:
        """The reply is whole."""
        if not self.over.done():
            self.over.set_result(None)


def body(model: str, text: str, *, stream: bool = False) -> bytes:
    """A request of about 800 bytes."""
    system = "You are the assistant of a city guide. Answer in one friendly sentence. " * 9
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, "temperature": 0, "stream": stream}).encode()


def asked(well: Well, text: bytes) -> Line:
    """Ask as a connection does: in this very call, as far as it goes."""
    line = Line()
    given: Any = line
    exchange = Exchange(
        given,
        method=b"POST",
        target=b"/v1/chat/completions",
        headers={b"content-type": b"application/json"},
        body=text,
        started_s=time.perf_counter(),
    )
    Drive(serve(well.door, exchange), asyncio.get_running_loop())
    return line


async def hits_us(well: Well) -> tuple[list[float], float]:
    """CPU microseconds of each of many hits until its reply is written; and of a whole one, mean."""
    bodies = [body("kept", f"What is open at {number}?") for number in range(NUM_QUESTIONS)]
    for each in bodies:
        await asked(well, each).over
    told = asked(well, bodies[0]).text
    if b"Cache-Status: stepwell; hit" not in told or b"The well is deep" not in told:
        raise RuntimeError(f"no hit: {told[:500]!r}")
    costs_us, began_s = [], time.thread_time()
    for number in range(NUM_HITS):
        switches, before_s = num_switches(), time.thread_time()
        line = asked(well, bodies[number % NUM_QUESTIONS])
        if num_switches() == switches:
            costs_us.append((line.first_cpu_s - before_s) * 1e6)
        if number % 100 == 0:
            await asyncio.sleep(0)
    return sorted(costs_us), (time.thread_time() - began_s) / NUM_HITS * 1e6


def num_switches() -> int:
    """How often the kernel has given this thread's core to somebody else."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


async def misses_us(well: Well, model: str, run: int) -> float:
    """CPU microseconds of one miss, all threads and writing included; mean of many."""
    bodies = [body(model, f"What is open at {number} on {run}?") for number in range(NUM_MISSES)]
    before_s = time.process_time()
    for number, each in enumerate(bodies):
        await asked(well, each).over
        if number % 100 == 0:
            await asyncio.sleep(0.01)
    return (time.process_time() - before_s) / NUM_MISSES * 1e6


async def equal(well: Well, run: int) -> tuple[int, list[float]]:
    """Calls upstream of many equal requests at once; milliseconds from the leader's first words to each follower's."""
    engine: Any = well.engines["slow"]
    before = engine.asked
    lines = []
    for number in range(NUM_EQUAL):
        lines.append(asked(well, body("slow", f"run {run}", stream=number % 2 == 0)))
        if number % 50 == 0:
            await asyncio.sleep(0.001)
    await asyncio.gather(*(line.over for line in lines))
    if not all(line.text.startswith(b"HTTP/1.1 200 OK") for line in lines):
        raise RuntimeError("not all were answered")
    streams = lines[::2]
    if not all(line.text.endswith(b"0\r\n\r\n") and b"[DONE]" in line.text for line in streams):
        raise RuntimeError("a stream was cut off")
    return engine.asked - before, sorted((line.first_s - lines[0].first_s) * 1000 for line in streams[1:])


async def measured(folder: Path) -> dict[str, float]:
    """All of it, in one well."""
    well = build(parse(CONFIG.replace("{folder}", str(folder))))
    try:
        await asked(well, body("kept", "warm up")).over
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # as the gateway does
        p99s, p50s, wholes, kept, passed = [], [], [], [], []
        for run in range(RUNS):
            costs, whole = await hits_us(well)
            p50s.append(costs[len(costs) // 2])
            p99s.append(costs[len(costs) * 99 // 100])
            wholes.append(whole)
            passed.append(await misses_us(well, "passed", run))
            kept.append(await misses_us(well, "kept", run))
        runs = [await equal(well, run) for run in range(RUNS)]
    finally:
        await well.close()
    calls = max(calls for calls, _ in runs)
    halves, lasts = (median(lags[at] for _, lags in runs) for at in (NUM_EQUAL // 4, -1))
    counted, hit_us, whole_us = len(costs) / NUM_HITS, (median(p50s), median(p99s)), median(wholes)
    print(f"{machine()}; {counted:.1%} of the hits of the last run count")
    print(f"a hit: p50 {hit_us[0]:.1f} us, p99 {hit_us[1]:.1f} us; with what follows the reply {whole_us:.1f} us")
    print(f"a miss: {median(passed):.1f} us past the cache, {median(kept):.1f} us that leads, is kept and written down")
    print(f"{NUM_EQUAL} equal requests: {calls} call; a follower's first words after its leader's: ", end="")
    print(f"median {halves:.2f} ms, last {lasts:.2f} ms")
    return {
        "coalesced_calls": float(calls),
        "exact_hit_us_p50": round(median(p50s), 1),
        "exact_hit_us_p99": round(median(p99s), 1),
        "exact_hit_us_whole": round(median(wholes), 1),
        "follower_lag_ms_p50": round(halves, 2),
        "follower_lag_ms_max": round(lasts, 2),
        "lead_us": round(median(kept) - median(passed), 1),
    }


def measure() -> dict[str, float]:
    """The keys of the issue, and a few figures beside them."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            import uvloop  # noqa: PLC0415 - not there on Windows

            return uvloop.run(measured(Path(folder)))
        except ImportError:
            return asyncio.run(measured(Path(folder)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(measure()))
