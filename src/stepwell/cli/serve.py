"""`stepwell serve`: open the front door."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell import config as configuration
from stepwell.config import Config
from stepwell.errors import ConfigError, StepwellError
from stepwell.gateway import serve as gateway
from stepwell.toml import placed
from stepwell.well import build

if TYPE_CHECKING:
    from argparse import _SubParsersAction

FAILED = 2


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("serve", help="serve an OpenAI-compatible API", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("stepwell.toml"), help="default: stepwell.toml")
    parser.add_argument("--port", type=int, help="instead of server.port")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    config = with_port(configuration.load(given.config), given.port)
    if config.server.workers == 1:
        stand(config)
        return 0
    place = gateway.Place(
        host=config.server.host,
        port=config.server.port or free_port(config.server.host),
        workers=config.server.workers,
        drain_s=config.server.drain_s,
    )
    return gateway.supervise(place, partial(work, str(given.config.resolve()), place.port))


def with_port(config: Config, port: int | None) -> Config:
    """The same configuration on another port."""
    if port is None:
        return config
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, port=port))


def free_port(host: str) -> int:
    """A free port, so that all workers can listen on the same one."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def work(path: str, port: int, number: int) -> None:
    """One of several workers, in a process of its own."""
    try:
        stand(with_port(configuration.load(path), port), worker=str(number))
    except StepwellError as error:
        told = placed(error, Path(path)) if isinstance(error, ConfigError) else error
        print(f"stepwell: {told}", file=sys.stderr)
        sys.exit(FAILED)


def stand(config: Config, *, worker: str = "") -> None:
    """Build the well and serve until told to stop; of several workers, only the first says where."""

    async def standing() -> None:
        well = build(config, worker=worker)
        try:
            door = gateway.bound(well.place)
            started = (lambda: None) if worker not in {"", "0"} else partial(say, config, door)
            async with well.working():
                await gateway.stand(door, well.door, well.limits, well.place.drain_s, started)
        finally:
            await well.close()

    gateway.run(standing)


def say(config: Config, door: socket.socket) -> None:
    """Tell where it listens and who may come in."""
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    if config.keys:
        who = f"{len(config.keys)} API key{'s' if len(config.keys) > 1 else ''}"
    else:
        who = "no API keys configured: on loopback only, anybody on this machine may ask"
    print(
        f"stepwell: http://{shown}:{port}/v1 · {', '.join(config.routes)} · "
        f"{config.server.workers} worker{'s' if config.server.workers > 1 else ''} · {who} · process {os.getpid()}",
        flush=True,
    )
