"""What a request costs at the gateway, beside nginx and LiteLLM in the same run: `python -m bench.gateway`.

CPU of the whole process tree, one worker each, 32 connections, requests of 809 bytes, medians of interleaved rounds.
Stepwell checks keys, writes its ledger and counts its metrics throughout. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import cpu, load, peers

CONNECTIONS = 32
STREAMS, FRAMES, GAP_S = 64, 400, 0.005
STARTS = 5
ROWS = (
    # key, what, must, aim, and whether less is better
    ("hit_vs_nginx", "exact hit, canonical / nginx static 2 KB (CPU)", 4.0, 2.5, True),
    ("hit_vs_litellm", "LiteLLM's in-memory hit / exact hit (CPU)", 100.0, 250.0, False),
    ("pass_vs_nginx", "pass-through / nginx proxy_pass (CPU)", 6.0, 3.5, True),
    ("us_per_frame", "stream, CPU microseconds a frame", 10.0, 5.0, True),
    ("rss_mb", "memory after start, MB", 80.0, 50.0, True),
    ("cold_start_s", "cold start to first answer, seconds", 2.0, 0.7, True),
)


@dataclass(frozen=True)
class Target:
    """One server under load."""

    name: str
    pid: int
    url: str
    lua: Path
    seconds: int


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--skip-litellm", action="store_true")
    given = parser.parse_args()
    print(f"{cpu.machine()}, Python {platform.python_version()}, {platform.system()} {platform.release()}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="stepwell-bench-"))
    folder.chmod(0o755)  # nginx's worker gives up root's rights and must still read its page
    try:
        figures = measured(folder, given.rounds, given.seconds, skip_litellm=given.skip_litellm)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for key, what, must, aim, less in ROWS:
        print(line(what, figures[key], must, aim, less=less))
    print(json.dumps(figures))


def line(what: str, figure: float | None, must: float, aim: float, *, less: bool) -> str:
    """One row of the table."""
    sign = "≤" if less else "≥"
    if figure is None:
        return f"{what:<52} {'not measured':>12}   must {sign} {must:g}, aim {sign} {aim:g}"
    reaches = (lambda bound: figure <= bound) if less else (lambda bound: figure >= bound)
    verdict = "reaches the aim" if reaches(aim) else "holds the must" if reaches(must) else "MISSES THE MUST"
    return f"{what:<52} {figure:>12.2f}   must {sign} {must:g}, aim {sign} {aim:g}: {verdict}"


def measured(folder: Path, rounds: int, seconds: int, *, skip_litellm: bool) -> dict[str, float | None]:
    """Start everything, run the rounds, stop everything."""
    figures: dict[str, float | None] = {key: None for key, *_ in ROWS}
    with ExitStack() as stack:
        up, paced, ours = peers.free_port(), peers.free_port(), peers.free_port()
        answer = json.dumps(peers.ANSWER, separators=(",", ":"))
        stack.enter_context(started(folder, "mock", peers.nginx(folder, peers.MOCK.format(port=up, answer=answer)), up))
        mock = [sys.executable, "-m", "bench.mock", str(paced), str(FRAMES), str(GAP_S)]
        stack.enter_context(started(folder, "paced", mock, paced))
        figures.update(starts(folder / "starts", up, paced))
        command = peers.stepwell(folder / "stepwell", ours, up, paced)
        pid = stack.enter_context(started(folder, "stepwell", command, ours))
        hit_url = f"http://127.0.0.1:{ours}/v1/chat/completions"
        check_hit(ours)
        targets = [
            *nginx_targets(stack, folder, up, seconds),
            Target("hit", pid, hit_url, load.script(folder / "hit.lua", load.bodies("hit")), seconds),
            Target("pass", pid, hit_url, load.script(folder / "pass.lua", load.bodies("pass")), seconds),
        ]
        if not skip_litellm:
            targets += litellm_targets(stack, folder, up, seconds)
        passing = {"ours": (pid, ours), **relays(stack, folder, paced)}
        costs, frames_us = run_rounds(targets, rounds, passing)
    for name, cost_us in frames_us.items():
        print(f"a frame through {name}, in the same rounds: {median(cost_us):.2f} us", flush=True)
    figures["hit_vs_nginx"] = ratio(costs, "hit", "nginx static")
    figures["pass_vs_nginx"] = ratio(costs, "pass", "nginx proxy_pass")
    figures["hit_vs_litellm"] = ratio(costs, "LiteLLM hit", "hit")
    figures["us_per_frame"] = round(median(frames_us["ours"]), 2)
    return figures


def started(folder: Path, name: str, command: list[str], port: int, wait_s: float = 30.0):  # noqa: ANN201
    """One server, running until the end of the benchmark."""
    return peers.running(command, port, folder / f"{name}.log", wait_s=wait_s)


def nginx_targets(stack: ExitStack, folder: Path, up: int, seconds: int) -> list[Target]:
    """The physical reference: a static file, and a plain proxy."""
    static, proxy = peers.free_port(), peers.free_port()
    command = [peers.system_package("nginx", "nginx-light"), "-v"]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stderr.strip())
    inside = peers.STATIC.format(port=static, folder="@folder")
    static_pid = stack.enter_context(started(folder, "static", peers.nginx(folder, inside), static))
    proxy_command = peers.nginx(folder, peers.PROXY.format(port=proxy, up=up, buffering="on"))
    proxy_pid = stack.enter_context(started(folder, "proxy", proxy_command, proxy))
    get = load.script(folder / "get.lua", [], "GET")
    post = load.script(folder / "post.lua", load.bodies("mock"))
    return [
        Target("nginx static", static_pid, f"http://127.0.0.1:{static}/page.json", get, seconds),
        Target("nginx proxy_pass", proxy_pid, f"http://127.0.0.1:{proxy}/v1/chat/completions", post, seconds),
    ]


def relays(stack: ExitStack, folder: Path, paced: int) -> dict[str, tuple[int, int]]:
    """Process and port of what else passes the same frames on: nginx, and the least that can, in C and in Python."""
    ports = [peers.free_port() for _ in range(3)]
    commands = {
        "nginx, buffering off": lambda: peers.nginx(
            folder, peers.PROXY.format(port=ports[0], up=paced, buffering="off")
        ),
        "a bare relay in C": lambda: peers.relay(folder, ports[1], paced),
        "a bare relay on uvloop": lambda: [sys.executable, "-m", "bench.relay", str(ports[2]), str(paced)],
    }
    found = {}
    for (name, command), port in zip(commands.items(), ports, strict=True):
        try:
            found[name] = (stack.enter_context(started(folder, name.replace(" ", "-"), command(), port)), port)
        except peers.PeerError as error:
            print(f"{name} could not be measured: {error}", flush=True)
    return found


def litellm_targets(stack: ExitStack, folder: Path, up: int, seconds: int) -> list[Target]:
    """LiteLLM with its in-memory cache; nothing where it cannot run, with the reason."""
    port = peers.free_port()
    try:
        pid = stack.enter_context(started(folder, "litellm", peers.litellm(folder, port, up), port, 180))
        for body in load.bodies("hit"):
            peers.ask(port, body)
        print(f"LiteLLM {peers.litellm_version()}", flush=True)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        target = Target("LiteLLM hit", pid, url, load.script(folder / "litellm.lua", load.bodies("hit")), seconds * 2)
        load.wrk(url, target.lua, connections=8, seconds=10)
    except (peers.PeerError, load.LoadError, OSError, subprocess.SubprocessError) as error:
        print(f"LiteLLM could not be measured: {error}", flush=True)
        return []
    return [target]


def check_hit(port: int) -> None:
    """Every one of the eight bodies must be answered by the cache, with the upstream's words."""
    texts = load.bodies("hit")
    peers.ask(port, texts[0])
    for body in texts:
        told, headers = peers.ask(port, body)
        wanted = peers.content(json.dumps(peers.ANSWER).encode())
        if headers["stepwell-step"] != "cache" or peers.content(told) != wanted:
            raise peers.PeerError(f"not a hit: {headers}")


def run_rounds(
    targets: list[Target], rounds: int, passing: dict[str, tuple[int, int]]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """CPU microseconds a request by server and round; and a frame by what passes it on (process and port) and round."""
    for target in targets:
        load.wrk(target.url, target.lua, connections=CONNECTIONS, seconds=1)
    costs: dict[str, list[float]] = {target.name: [] for target in targets}
    frames_us: dict[str, list[float]] = {name: [] for name in passing}
    for number in range(1, rounds + 1):
        told = []
        for target in targets:
            before_s = cpu.cpu_s(target.pid)
            done = load.wrk(target.url, target.lua, connections=CONNECTIONS, seconds=target.seconds)
            cost_us = (cpu.cpu_s(target.pid) - before_s) / done.requests * 1e6
            costs[target.name].append(cost_us)
            rate = done.requests / done.seconds
            told.append(f"{target.name} {cost_us:.1f} us ({rate:.0f}/s, p99 {done.p99_ms:.1f} ms)")
        for name, (pid, port) in passing.items():
            frames_us[name].append(frame_cost_us(pid, port))
            told.append(f"frame {name} {frames_us[name][-1]:.2f} us")
        print(f"round {number} of {rounds}: {', '.join(told)}", flush=True)
    return costs, frames_us


def frame_cost_us(pid: int, port: int) -> float:
    """CPU microseconds a frame of paced streams, everything included: head, end, ledger."""
    body = load.bodies("stream", stream=True)[0]
    before_s = cpu.cpu_s(pid)
    frames = asyncio.run(load.streams(port, body, num=STREAMS, num_frames=FRAMES))
    return (cpu.cpu_s(pid) - before_s) / frames * 1e6


def ratio(costs: dict[str, list[float]], over: str, under: str) -> float | None:
    """Median over the rounds of one server's cost in units of another's."""
    if not costs.get(over) or not costs.get(under):
        return None
    return round(median(a / b for a, b in zip(costs[over], costs[under], strict=True)), 2)


def starts(folder: Path, up: int, paced: int) -> dict[str, float]:
    """Seconds from the command to the first answer, and memory a second after it; medians."""
    seconds, memory = [], []
    for _ in range(STARTS):
        port = peers.free_port()
        command = peers.stepwell(folder, port, up, paced)
        began_s = time.monotonic()
        with peers.running(command, port, folder / "log.txt") as pid:
            peers.ask(port, load.bodies("hit")[0])
            seconds.append(time.monotonic() - began_s)
            time.sleep(1)  # until the ledger's writer is there too
            memory.append(cpu.rss_mb(pid))
    return {"cold_start_s": round(median(seconds), 2), "rss_mb": round(median(memory), 1)}


if __name__ == "__main__":
    main()
