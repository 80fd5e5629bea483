"""What an edge pays: nginx for a bundle that it has (brotli_static), workerd for a text that it fills."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.templates.audience import bundle_of_24
from stepwell.signing import new_key
from stepwell.store.objects import opened
from stepwell.templates.edge_config import Edge, nginx
from stepwell.templates.publish import publish

ROUNDS = 5
NUM_GETS, NUM_FILLS = 20_000, 3_000
EDGE = Path(__file__).parents[2] / "edge"
MODULE = Path("/usr/lib/nginx/modules/ngx_http_brotli_static_module.so")
TICKS = os.sysconf("SC_CLK_TCK")


def measure() -> dict[str, float | None]:
    """CPU microseconds a GET, CPU milliseconds a fill: medians of some rounds over one kept connection."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        key = new_key()
        manifest = publish(opened(str(root / "site")), {"en": bundle_of_24()}, campaign="wins", key=key)
        public = b64encode(key.public.public_bytes_raw()).decode()
        with origin(root) as port:
            if port is None:
                return {"nginx_cpu_us_per_get": None, "workerd_cpu_ms_per_fill": None}
            us = nginx_us(root, port, manifest.bundles["en"].path)
            ms = workerd_ms(root, port, public)
    return {"nginx_cpu_us_per_get": us, "workerd_cpu_ms_per_fill": ms}


@contextmanager
def origin(root: Path) -> Iterator[int | None]:
    """A real nginx with the configuration that `stepwell templates edge-config` prints."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        print("  nginx is not installed")
        yield None
        return
    port = free_port()
    server = nginx(Edge(root / "site", f"127.0.0.1:{port}", brotli=MODULE.exists()))
    load = f"load_module {MODULE};\n" if MODULE.exists() else ""
    (root / "nginx.conf").write_text(
        f"{load}worker_processes 1;\npid {root}/pid;\nerror_log {root}/error.txt;\ndaemon off;\n"
        f"events {{}}\nhttp {{\naccess_log off;\nkeepalive_requests 1000000;\n{server}}}\n"
    )
    process = subprocess.Popen([program, "-c", root / "nginx.conf", "-p", root])
    try:
        wait(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def nginx_us(root: Path, port: int, path: str) -> float:
    """CPU of nginx's worker for one GET of the bundle in brotli."""
    master = int((root / "pid").read_text())
    (worker,) = (int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split())
    accept = "br" if MODULE.exists() else "gzip"
    asked = f"GET /{path} HTTP/1.1\r\nHost: edge\r\nAccept-Encoding: {accept}\r\n\r\n".encode()
    costs = []
    with socket.create_connection(("127.0.0.1", port)) as line:
        size = len(answer(line, asked))
        for _ in range(ROUNDS):
            before = cpu_s(worker)
            for _ in range(NUM_GETS):
                line.sendall(asked)
                taken = 0
                while taken < size:
                    taken += len(line.recv(65536))
            costs.append((cpu_s(worker) - before) / NUM_GETS * 1e6)
    print(f"  nginx: {statistics.median(costs):.1f} CPU µs a GET, {size} bytes with headers ({accept})")
    return round(statistics.median(costs), 1)


def workerd_ms(root: Path, origin_port: int, public: str) -> float | None:
    """CPU of workerd for one POST that fills a text."""
    program = EDGE / "node_modules" / ".bin" / "workerd"
    if not program.exists():
        print("  workerd is not installed")
        return None
    port = free_port()
    environment = os.environ | {"STEPWELL_ORIGIN": f"http://127.0.0.1:{origin_port}", "STEPWELL_KEYS": public}
    command = [program.resolve(), "serve", EDGE / "config.capnp", "--socket-addr", f"http=127.0.0.1:{port}"]
    process = subprocess.Popen(command, env=environment, cwd=root)
    body = json.dumps({"reader": "r", "values": {"name": "Ann", "wins": 3, "place": 2, "kind": "cup"}}).encode()
    asked = b"POST /fill/result HTTP/1.1\r\nHost: edge\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    costs = []
    try:
        wait(port)
        with socket.create_connection(("127.0.0.1", port)) as line:
            assert b"200 OK" in answer(line, asked)[:20]  # noqa: S101
            for _ in range(ROUNDS):
                before = family_cpu_s(process.pid)
                for _ in range(NUM_FILLS):
                    answer(line, asked)
                costs.append((family_cpu_s(process.pid) - before) / NUM_FILLS * 1e3)
    finally:
        process.kill()
        process.wait()
    print(f"  workerd: {statistics.median(costs):.3f} CPU ms a fill")
    return round(statistics.median(costs), 3)


def answer(line: socket.socket, asked: bytes) -> bytes:
    """One reply with a Content-Length, or in one chunk."""
    line.sendall(asked)
    data = line.recv(65536)
    while True:
        head, _, body = data.partition(b"\r\n\r\n")
        lower = head.lower()
        if b"content-length:" in lower:
            if len(body) >= int(lower.partition(b"content-length:")[2].split(b"\r\n")[0]):
                return data
        elif body.endswith(b"0\r\n\r\n"):
            return data
        data += line.recv(65536)


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def family_cpu_s(pid: int) -> float:
    """The same with its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_s(pid) + sum(cpu_s(int(child)) for child in children)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def wait(port: int) -> None:
    """Until somebody listens."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nobody listens on port {port}")
