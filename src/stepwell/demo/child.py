"""The gateway as anybody would start it: a configuration file, the command line, a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from stepwell.demo.client import Broken, Connection
from stepwell.demo.play import Place
from stepwell.demo.traffic import MODEL, TENANTS
from stepwell.errors import StepwellError

HOST = "127.0.0.1"
START_S = 30.0
STOP_S = 40.0
FEW_CORES = 2
"""Up to so many, the model gets one thread: llama.cpp's threads wait for each other by spinning, and where one of
them has lost its core to the gateway or the readers, all of them stand still."""
COMMAND = "import sys; from stepwell.cli.main import main; sys.exit(main())"
WRITTEN = ("cache.db", "ledger.db")
"""Files of the gateway; each run starts without those of the last."""

CONFIG = """\
# Written by `stepwell demo`; `stepwell serve --config` takes it as it is, once the keys' variables are set.
[server]
host = "{host}"
port = {port}

{keys}
{engine}
[routes.{route}]
engines = ["{name}"]
price = "house-writer"
share = "tenant" # everybody may read what the guide says of a venue

[cache]
path = {cache}

[ledger]
path = {ledger}

[stored]
path = "" # nobody asks to have anything stored
"""
WRITER = """\
[engines.house-writer]
type = "embedded"
path = {model}
threads = {threads}
"""
GUIDE = """\
[engines.guide]
type = "http"
url = "http://{host}:{port}/v1"
"""
MEANING = """
[semantic]
snapshot = ""
deadline_ms = 2000 # two cores have readers, model, guide and gateway on them

[promise]
error = {error}
audit = 0.05 # a short run: more of it is looked at
judge = "exact" # at temperature 0 the writer says the same of the same facts
"""
CAPTURED = "captured"
CAPTURE = """
[capture]
tenants = ["guide-web", "guide-app"] # what the concierge's guests ask is nobody's to learn from
steps = ["large"] # what the house writer itself said: a student learns from that (recipes/city-guide-student.toml)
folder = {folder}
licence = "Apache-2.0" # an invented city, asked about by invented readers
rows_s = 2000
"""


class GatewayError(StepwellError):
    """The demo's gateway did not start, or died."""

    code = "gateway_down"


@contextmanager
def gateway(folder: Path, name: str, engine: str, more: str = "") -> Iterator[Place]:
    """Start the gateway on a free port, stop it at the end; `engine`: the table of its engine `name`.

    Raises GatewayError with the log's last lines.
    """
    for written in WRITTEN:
        for old in folder.glob(f"{written}*"):
            old.unlink()
    shutil.rmtree(folder / CAPTURED, ignore_errors=True)
    place = Place(HOST, free_port(), {tenant: secrets.token_urlsafe(24) for tenant in TENANTS})
    config = folder / "stepwell.toml"
    config.write_text(config_text(place, folder, name, engine) + more, encoding="utf-8")
    command = [sys.executable, "-c", COMMAND, "serve", "--config", str(config)]
    with child(command, place, folder / "serve.log", {variable(tenant): key for tenant, key in place.keys.items()}):
        yield place


@contextmanager
def guide(folder: Path, model: Path, num_venues: int, seed: int) -> Iterator[Place]:
    """Start the guide's own server, stop it at the end. Raises GatewayError."""
    place = Place(HOST, free_port(), {})
    words = ["--model", str(model), "--venues", str(num_venues), "--city", str(seed), "--port", str(place.port)]
    with child([sys.executable, "-m", "stepwell.demo.guide", *words], place, folder / "guide.log", {}):
        yield place


@contextmanager
def child(command: list[str], place: Place, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """One server in a process of its own, ready to answer. Raises GatewayError."""
    with log.open("w+", encoding="utf-8") as told:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command, env=os.environ | dict(environment), stdout=told, stderr=subprocess.STDOUT
        )
        try:
            wait_ready(process, place, log)
            yield
            if process.poll() is not None:
                raise GatewayError(died(process, log))
        finally:
            stop(process)


def writer_table(model: Path) -> str:
    """The engine of the house writer in the gateway's own process."""
    threads = 1 if (os.cpu_count() or 1) <= FEW_CORES else 2
    return WRITER.format(model=json.dumps(str(model), ensure_ascii=False), threads=threads)


def capture_table(folder: Path) -> str:
    """What is kept to learn from."""
    return CAPTURE.format(folder=json.dumps(str(folder / CAPTURED), ensure_ascii=False))


def config_text(place: Place, folder: Path, name: str, engine: str) -> str:
    """The configuration that plays the city guide on one engine."""
    keys = "".join(f'[[keys]]\ntenant = "{tenant}"\nenv = "{variable(tenant)}"\n\n' for tenant in place.keys)
    return CONFIG.format(
        host=place.host,
        port=place.port,
        keys=keys,
        engine=engine,
        name=name,
        route=MODEL,
        cache=json.dumps(str(folder / "cache.db"), ensure_ascii=False),
        ledger=json.dumps(str(folder / "ledger.db"), ensure_ascii=False),
    )


def variable(tenant: str) -> str:
    """The environment variable that holds a tenant's key."""
    return f"STEPWELL_DEMO_{tenant.upper().replace('-', '_')}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_ready(child: subprocess.Popen[bytes], place: Place, log: Path) -> None:
    """Wait until the gateway says that it can answer. Raises GatewayError."""
    end_s = monotonic() + START_S
    while monotonic() < end_s:
        if child.poll() is not None:
            raise GatewayError(died(child, log))
        if asyncio.run(is_ready(place)):
            return
        sleep(0.05)
    raise GatewayError(f"the gateway was not ready after {START_S:g} s; {log} says:\n{tail(log)}")


async def is_ready(place: Place) -> bool:
    """Whether /readyz says yes."""
    async with Connection(place.host, place.port) as connection:
        try:
            return (await connection.ask("/readyz")).status == 200  # noqa: PLR2004 - HTTP's word for well
        except (OSError, Broken):
            return False


def died(child: subprocess.Popen[bytes], log: Path) -> str:
    """Say how the gateway ended."""
    return f"the gateway ended by itself (exit code {child.returncode}); {log} says:\n{tail(log)}"


def tail(log: Path, num_lines: int = 12) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:])


def stop(child: subprocess.Popen[bytes]) -> None:
    """Let the gateway drain and settle; kill it only where it does not."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
