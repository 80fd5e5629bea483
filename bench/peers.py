"""The servers that are measured, nginx, LiteLLM and Stepwell: each started by its own command, stopped at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.load import KEY

LITELLM_VENV = Path(".venv-litellm")
LITELLM = "litellm[proxy]==1.106.2"  # pinned: some of its releases of 2026 held a back door
ANSWER = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1,
    "model": "mock",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The Amber Fox is a moderately priced French pub. " * 8},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 150, "completion_tokens": 80, "total_tokens": 230},
}
NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; types {{ }} default_type application/json;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {inside}
}}
"""
STATIC = "sendfile on; tcp_nopush on; server {{ listen 127.0.0.1:{port} backlog=2048; root {folder}; }}"
MOCK = "server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ return 200 '{answer}'; }} }}"
PROXY = (
    "upstream up {{ server 127.0.0.1:{up}; keepalive 256; keepalive_requests 1000000000; }} "
    "server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ proxy_pass http://up; proxy_http_version 1.1; "
    'proxy_set_header Connection ""; proxy_buffering {buffering}; }} }}'
)
LITELLM_YAML = """
model_list:
  - model_name: hit
    litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:{up}/v1", api_key: none}}
litellm_settings:
  telemetry: false
  cache: true
  cache_params: {{type: local}}
general_settings:
  master_key: {key}
"""
STEPWELL_TOML = """
[server]
port = {port}

[[keys]]
tenant = "bench"
env = "BENCH_KEY"

[engines.up]
type = "http"
url = "http://127.0.0.1:{up}/v1"

[engines.paced]
type = "http"
url = "http://127.0.0.1:{paced}/v1"

[routes.hit]
engines = ["up"]
price = "gpt-4o-mini"

[routes.pass]
engines = ["up"]
price = "gpt-4o-mini"
cache = false

[routes.stream]
engines = ["paced"]
price = "gpt-4o-mini"
cache = false

[cache]
path = "{folder}/cache.db"

[ledger]
path = "{folder}/ledger.db"
"""


class PeerError(RuntimeError):
    """A server that cannot be started here, and why."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def system_package(command: str, package: str) -> str:
    """The path of a command; where it is missing, apt is asked for it. Raises PeerError."""
    path = shutil.which(command, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-qq", package], capture_output=True, check=False)
        path = shutil.which(command, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None:
        raise PeerError(f"{command} is not here and cannot be installed: apt-get install {package}")
    return path


@contextmanager
def running(command: list[str], port: int, log: Path, *, wait_s: float = 30.0) -> Iterator[int]:
    """Start a server, wait for its port, stop it and its children at the end. Gives its process id."""
    environment = {**os.environ, "BENCH_KEY": KEY, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        wait_open(server, port, wait_s, log)
        yield server.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_open(server: subprocess.Popen[bytes], port: int, wait_s: float, log: Path) -> None:
    """Wait until a server listens. Raises PeerError where it does not."""
    end_s = time.monotonic() + wait_s
    while time.monotonic() < end_s:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if server.poll() is not None:
            raise PeerError(f"{server.args!r} ended: {log.read_text()[-300:]}")
        time.sleep(0.005)
    raise PeerError(f"{server.args!r} does not listen after {wait_s:g} s: {log.read_text()[-300:]}")


def nginx(folder: Path, inside: str) -> list[str]:
    """The command of one nginx with one worker."""
    path = folder / f"nginx-{abs(hash(inside))}"
    path.mkdir()
    (path / "page.json").write_bytes(b"x" * 2048)
    config = path / "nginx.conf"
    config.write_text(NGINX.format(folder=path, inside=inside.replace("@folder", str(path))))
    return [system_package("nginx", "nginx-light"), "-c", str(config), "-p", str(path)]


def relay(folder: Path, port: int, up: int) -> list[str]:
    """The command of a relay in C that does nothing but pass bytes on. Raises PeerError without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise PeerError("no C compiler: apt-get install gcc libc6-dev")
    built = folder / "relay"
    source = Path(__file__).with_name("relay.c")
    done = subprocess.run([compiler, "-O2", "-o", str(built), str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(f"relay.c cannot be compiled: {done.stderr[:300]}")
    return [str(built), str(port), str(up)]


def stepwell(folder: Path, port: int, up: int, paced: int) -> list[str]:
    """The command of Stepwell with keys, ledger, metrics and both stores of the cache."""
    folder.mkdir(exist_ok=True)
    config = folder / "stepwell.toml"
    config.write_text(STEPWELL_TOML.format(folder=folder, port=port, up=up, paced=paced))
    return [str(Path(sys.executable).with_name("stepwell")), "serve", "--config", str(config)]


def litellm(folder: Path, port: int, up: int) -> list[str]:
    """The command of LiteLLM's proxy in an environment of its own, made where it is missing. Raises PeerError."""
    command = LITELLM_VENV / "bin" / "litellm"
    if not command.exists():
        print("installing LiteLLM (some minutes) …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(LITELLM_VENV)], check=True)
        for _ in range(3):
            pip = [str(LITELLM_VENV / "bin" / "pip"), "install", "-q", "--retries", "5", LITELLM]
            if subprocess.run(pip, capture_output=True, check=False).returncode == 0:
                break
    if not command.exists():
        raise PeerError("LiteLLM could not be installed")
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_YAML.format(up=up, key=KEY))
    return [str(command), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]


def litellm_version() -> str:
    """The version that is installed."""
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    command = [str(LITELLM_VENV / "bin" / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def ask(port: int, body: str) -> tuple[bytes, dict[str, str]]:
    """One request, for checking: body and headers of the answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        body.encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - always http, always loopback
        return reply.read(), {name.lower(): value for name, value in reply.headers.items()}


def content(body: bytes) -> str:
    """What an answer says."""
    return str(json.loads(body)["choices"][0]["message"]["content"])
