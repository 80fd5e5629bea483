"""Real servers for tests and benchmarks, on loopback, thrown away afterwards; each says how to get it where it is not."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from functools import cache
from pathlib import Path

START_S = 20.0


class Missing(Exception):  # noqa: N818 - a state of the machine
    """The server is not installed; the message says how to get it."""


class Server:
    """A process that listens on a port of loopback, and keeps its files in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stepwell-server-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def user(self) -> str | None:
        return None

    def start(self) -> subprocess.Popen[bytes]:
        """Start, or start again on the same port with the same files."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self.user,
                extra_groups=[] if self.user else None,
            )
        end_s = time.monotonic() + START_S
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)
        return self.process

    def listens(self) -> bool:
        with closing(socket.socket()) as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal; SIGSTOP makes it hang, and SIGCONT go on."""
        assert self.process is not None
        if how in (signal.SIGSTOP, signal.SIGCONT):
            for process in (self.process.pid, *self.children()):
                os.kill(process, how)
            return
        self.process.send_signal(how)
        self.process.wait(START_S)

    def children(self) -> list[int]:
        assert self.process is not None
        return [
            int(each) for each in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(START_S)
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(Server):
    """redis-server with an append-only file, so that it can be killed and come back."""

    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            raise Missing("redis-server is not installed: make system (Debian: apt-get install redis-server)")
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", *durable]


class PostgresServer(Server):
    """A cluster of PostgreSQL made for the occasion; it never runs as root."""

    password = "well"

    def __init__(self, *, fsync: bool = False) -> None:
        """Without `fsync`, what was committed survives a killed server, not a killed machine."""
        self.fsync = "on" if fsync else "off"
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        named = shutil.which("initdb")
        if not found and named is None:
            raise Missing("PostgreSQL is not installed: make system (Debian: apt-get install postgresql)")
        self.programs = found[-1].parent if found else Path(str(named)).parent
        super().__init__()
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        run_as(self.user, self.folder, "cp", "-a", str(new_cluster(self.programs, self.user, self.password)), "data")

    @property
    def user(self) -> str | None:
        return "postgres" if os.getuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgresql://well@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        settings += ["max_connections=40", f"fsync={self.fsync}"]
        return [str(self.programs / "postgres"), "-D", "data", *(part for each in settings for part in ("-c", each))]

    def listens(self) -> bool:
        ready = [self.programs / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        super().stop(how)
        if how == signal.SIGKILL:  # its children notice a moment later
            time.sleep(0.3)


@cache
def new_cluster(programs: Path, user: str | None, password: str) -> Path:
    """A cluster that was never started, made once: copying it is ten times quicker than initdb."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-cluster-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    secret = folder / "password"
    secret.write_text(password)
    for path in (folder, secret) if user is not None else ():
        shutil.chown(path, user)
    options = ["-A", "scram-sha-256", "-U", "well", "--pwfile", "password", "-N", "data"]
    run_as(user, folder, str(programs / "initdb"), *options)
    return folder / "data"


def run_as(user: str | None, folder: Path, *command: str) -> None:
    """Run something to its end. PostgreSQL does nothing as root."""
    done = subprocess.run(command, cwd=folder, user=user, capture_output=True, check=False, env=plain())
    if done.returncode:
        raise RuntimeError(done.stderr.decode())


def free_port() -> int:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def plain() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
