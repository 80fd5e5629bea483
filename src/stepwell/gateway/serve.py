"""Sockets, workers and signals: open the front door, keep it open, and close it without losing anybody."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from multiprocessing.process import BaseProcess
from time import monotonic, sleep
from typing import Any

from msgspec import Struct

from stepwell.errors import AdmitError, ConfigError, NotAllowed, Overloaded, TooLarge
from stepwell.gateway import reply
from stepwell.gateway.answer import Door, serve
from stepwell.gateway.exchange import Exchange
from stepwell.gateway.http import Limits, Listener, listening

log = logging.getLogger(__name__)

BACKLOG = 2048
SWEEP_S = 1.0
RESTART_S = 1.0
"""A worker that lives shorter than this is restarted no more often than this."""
STOPS = (signal.SIGTERM, signal.SIGINT)


CODES = {401: NotAllowed.code, 403: "not_allowed", 413: TooLarge.code, 429: "too_many_uploads", 503: Overloaded.code}


class Unreadable(AdmitError):  # noqa: N818 - a word like its siblings in errors.py
    """The HTTP itself is wrong; the status says how."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(what)
        self.status = status
        self.code = CODES.get(status, "bad_http")


class Place(Struct, frozen=True):
    """Where to listen, and how long callers in flight may take once told to stop."""

    host: str
    port: int
    workers: int
    drain_s: float


def bound(place: Place) -> socket.socket:
    """Open the listening socket. Raises ConfigError where the address is taken or not ours."""
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        listening_socket = socket.socket(family, socket.SOCK_STREAM)
        listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.workers > 1:
            listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening_socket.bind((place.host, place.port))
    except OSError as error:
        what = f"cannot listen on {place.host}:{place.port} ({error.strerror}); choose another host or port"
        raise ConfigError(what, field="server") from error
    return listening_socket


async def stand(
    listening_socket: socket.socket,
    door: Door,
    limits: Limits,
    drain_s: float,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Answer callers on a bound socket until SIGTERM or SIGINT, then let those in flight finish.

    A worker also stops when the process that looks after it is gone: nobody else could stop it, or start it again.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in STOPS:
        loop.add_signal_handler(number, stop.set)
    listener = Listener(limits, partial(serve, door), partial(turn_away, door), door.opens)
    gc.freeze()  # what is there now stays; what comes and goes is young, and holds no cycles worth a walk every time
    gc.set_threshold(50_000, 20, 50)
    server = await loop.create_server(listening(listener), sock=listening_socket, backlog=BACKLOG)
    started()
    above = multiprocessing.parent_process()
    while not stop.is_set() and (above is None or above.is_alive()):
        listener.sweep()
        await first_of(stop.wait(), SWEEP_S)
    server.close()
    await drained(listener, drain_s)


async def first_of(waiting: Awaitable[Any], seconds: float) -> None:
    """Wait for something, but no longer than so many seconds."""
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return


async def drained(listener: Listener, drain_s: float) -> None:
    """Wait until every caller in flight is answered; cut off whoever takes longer than `drain_s`."""
    listener.drain()
    end_s = monotonic() + drain_s
    while listener.connections and monotonic() < end_s:
        listener.sweep()
        await asyncio.sleep(0.02)
    for connection in tuple(listener.connections):
        log.warning("a caller was still waiting after %g s of draining: cut off", drain_s)
        connection.cut_off()
    await asyncio.sleep(0.05)  # the settlers of those who were cut off


def turn_away(door: Door, exchange: Exchange, status: int, why: str) -> None:
    """Refuse what could not even be read."""
    error = Unreadable(why, status)
    door.refused(error.code, status)
    reply.refuse(exchange, error, door.new_id())


def supervise(place: Place, work: Callable[[int], None]) -> int:
    """Run `work(number)` in `place.workers` processes; restart one that dies; stop them all on SIGTERM."""
    context = multiprocessing.get_context("spawn")
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for stopper in STOPS:
        signal.signal(stopper, stop)
    workers = {number: begun(context, work, number) for number in range(place.workers)}
    while not stopping:
        for number, (process, since_s) in workers.items():
            if not process.is_alive() and monotonic() - since_s > RESTART_S:
                log.error("worker %d died (exit code %s): started again", number, process.exitcode)
                workers[number] = begun(context, work, number)
        sleep(0.1)
    for process, _ in workers.values():
        process.terminate()
    for process, _ in workers.values():
        process.join(place.drain_s + 5)
    ended_well = (0, -signal.SIGTERM)  # the latter: told to stop before it had begun
    return int(any(process.exitcode not in ended_well for process, _ in workers.values()))


def begun(context: Any, work: Callable[[int], None], number: int) -> tuple[BaseProcess, float]:  # noqa: ANN401
    """Start one worker; its number and when it began."""
    process = context.Process(target=work, args=(number,), name=f"stepwell worker {number}")
    process.start()
    return process, monotonic()


def run(standing: Callable[[], Awaitable[None]]) -> None:
    """Run the event loop: uvloop's where there is one."""

    async def main() -> None:
        await standing()

    if sys.platform == "win32":
        asyncio.run(main())
        return
    import uvloop  # noqa: PLC0415 - not there on Windows

    uvloop.run(main())
