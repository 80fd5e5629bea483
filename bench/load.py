"""Load: wrk with bodies that differ in bytes and agree in meaning, and a reader of many paced streams."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BODY_BYTES = 809
KEY = "bench-key"
ASKED = (
    "You are the assistant of a city guide. Answer in one friendly sentence, name the place first, mention every fact "
    "that is given and nothing else, write prices in pounds, and never recommend a place that is not in the facts. "
)
FACTS = "name[The Amber Fox], eatType[pub], food[French], priceRange[moderate], area[riverside], near[Velvet Heron]"
LUA = """
local bodies = { %s }
local at = 0
wrk.method = "%s"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
request = function()
  at = at %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
done = function(summary, latency)
  local e = summary.errors
  local bad = e.status + e.connect + e.read + e.write + e.timeout
  io.write(string.format('JSON {"requests":%%d,"us":%%d,"bad":%%d,"p50":%%d,"p99":%%d}\\n', summary.requests,
    summary.duration, bad, latency:percentile(50), latency:percentile(99)))
end
"""


class LoadError(RuntimeError):
    """A round that does not count: errors among the answers."""


@dataclass(frozen=True)
class Load:
    """One run of wrk."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def bodies(model: str, *, stream: bool = False) -> list[str]:
    """Eight requests of 809 bytes each: another order, other spaces, another user; the same question."""
    messages = [{"role": "system", "content": ASKED}, {"role": "user", "content": FACTS}]
    fields: dict[str, Any] = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 80}
    written = []
    for number in range(8):
        names = list(fields)[number % 4 :] + list(fields)[: number % 4]
        asked = {**{name: fields[name] for name in names}, "stream": stream, "user": f"reader-{number}-"}
        colon = ": " if number % 2 else ":"
        short = json.dumps(asked, separators=(", " if number % 3 else ",", colon))
        asked["user"] += "x" * (BODY_BYTES - len(short))
        body = json.dumps(asked, separators=(", " if number % 3 else ",", colon))
        assert len(body) == BODY_BYTES, len(body)  # noqa: S101 - the claim is about this size
        written.append(body)
    return written


def script(path: Path, texts: list[str], method: str = "POST") -> Path:
    """Write the script that tells wrk what to send."""
    quoted = ", ".join("[==[" + text + "]==]" for text in texts) or '""'
    path.write_text(LUA % (quoted, method, KEY))
    return path


def wrk(url: str, lua: Path, *, connections: int, seconds: int) -> Load:
    """Run wrk with one thread. Raises LoadError where a single answer was wrong."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(lua), url]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"JSON (\{.*\})", out)
    if found is None:
        raise LoadError(f"wrk said nothing about {url}")
    told = json.loads(found[1])
    if told["bad"] or not told["requests"]:
        raise LoadError(f"{told['bad']} of {told['requests']} answers of {url} were errors")
    return Load(told["requests"], told["us"] / 1e6, told["p50"] / 1e3, told["p99"] / 1e3)


async def streams(port: int, body: str, *, num: int, num_frames: int) -> int:
    """Read `num` streams at once; the frames that arrived, in order and whole. Raises LoadError otherwise."""
    return sum(await asyncio.gather(*(one_stream(port, body, num_frames) for _ in range(num))))


async def one_stream(port: int, body: str, num_frames: int) -> int:
    """One stream to its end mark, every frame checked."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    told = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in told.split(b"\r\n")[0]:
        raise LoadError(f"a stream began with {told[:60]!r}")
    seen, rest = 0, b""
    while b"[DONE]" not in rest:
        piece = await reader.read(65536)
        if not piece:
            raise LoadError(f"a stream ended after {seen} frames")
        rest += piece
        for number in re.findall(rb'"content":"f(\d+) "', rest):
            if int(number) != seen:
                raise LoadError(f"frame {seen} is missing")
            seen += 1
        if b"[DONE]" not in rest:
            rest = rest[rest.rfind(b"\n\n") + 2 if b"\n\n" in rest else 0 :]
    writer.close()
    if seen != num_frames:
        raise LoadError(f"{seen} frames of {num_frames}")
    return seen
