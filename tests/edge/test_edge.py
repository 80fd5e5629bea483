"""The edge runtime as it is shipped: its size, what it may use, its loader, its worker in workerd, its page in Chromium."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stepwell.signing import SigningKey, new_key
from stepwell.store.objects import opened
from stepwell.templates.compile import bundle
from stepwell.templates.publish import Terms, kill, publish, rollback
from stepwell.templates.schema import Schema, Slot

ROOT = Path(__file__).parents[2]
EDGE = ROOT / "edge"
BIN = EDGE / "node_modules" / ".bin"
SCHEMA = Schema(name="cup", slots=(Slot(name="name", kind="text"), Slot(name="wins", kind="number", low=0, high=100)))
SOURCE = ".input {$wins :integer}\n.match $wins\none {{{$name} has one win.}}\n* {{{$name} has {$wins} wins.}}"

MIN_NODE = 20
"""The first that has WebCrypto as browsers have it."""


def node_version() -> int:
    if shutil.which("node") is None:
        return 0
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.removeprefix("v").partition(".")[0])


needs_node = pytest.mark.skipif(node_version() < MIN_NODE, reason=f"node {MIN_NODE} or newer is not installed")
needs_tools = pytest.mark.skipif(not (BIN / "terser").exists(), reason="npm's tools are not there: make test gets them")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def put(folder: Path, key: SigningKey, source: str = SOURCE, terms: Terms | None = None) -> None:
    data = {"en": bundle(SCHEMA, "en", {"name+wins": [source]})}
    publish(opened(str(folder)), data, campaign="cup", key=key, terms=terms or Terms())


def public(key: SigningKey) -> str:
    return b64encode(key.public.public_bytes_raw()).decode()


Served = tuple[str, list[tuple[str, dict[str, str]]]]


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A real web server, and every request that it got: its line and its headers."""
    seen: list[tuple[str, dict[str, str]]] = []

    class Logged(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            seen.append((self.requestline, dict(self.headers)))

        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Logged)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_node(script: str, **values: Any) -> Any:
    """What a script returns in node; its errors as `{"error": message}`."""
    told = json.dumps(values)
    whole = f"""
import {{ load }} from "{EDGE}/load.js";
import {{ filler }} from "{EDGE}/fill.js";
const given = {told};
try {{ console.log(JSON.stringify(await (async () => {{ {script} }})())); }}
catch (error) {{ console.log(JSON.stringify({{ error: error.message }})); }}
"""
    done = subprocess.run(["node", "--input-type=module", "-"], input=whole, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


LOAD = """
const seen = new Map(Object.entries(given.seen ?? {}));
const store = { getItem: (key) => seen.get(key), setItem: (key, value) => seen.set(key, value) };
const { fill, version } = await load(given.base, { keys: [given.key], locale: given.locale ?? "en", store });
return { ...fill("name+wins", given.values, given.reader), version, seen: Object.fromEntries(seen) };
"""


@needs_tools
def test_fill_alone_is_two_kilobytes() -> None:
    options = [
        "--module",
        "--toplevel",
        "-m",
        "-c",
        "passes=5,ecma=2022,unsafe_arrows,keep_fargs=false,unsafe,pure_getters",
    ]
    small = subprocess.run([BIN / "terser", EDGE / "fill.js", *options], capture_output=True, check=True).stdout
    assert len(gzip.compress(small, 9, mtime=0)) <= 2048


def test_nothing_of_the_platform_decides() -> None:
    text = (EDGE / "fill.js").read_text()
    assert not re.search(
        r"\beval\b|new Function|\bIntl\b|toLocale|localeCompare|\bimport\b|\brequire\b|getHours|getDate\(", text
    )


@needs_node
def test_load_verifies_and_fills(tmp_path: Path) -> None:
    key = new_key()
    put(tmp_path, key)
    with serving(tmp_path) as (base, _):
        told = in_node(LOAD, base=base, key=public(key), values={"name": "Ann", "wins": 1}, reader="r")
        assert told == {"text": "Ann has one win.", "variant": 0, "version": 1, "seen": {f"stepwell {base}": "1"}}


@needs_node
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("forged", "not signed by a trusted key"),
        ("changed", "not signed by a trusted key"),
        ("truncated", "JSON"),
        ("bundle gone", "404"),
        ("bundle changed", "not the bundle that was signed"),
        ("expired", "has expired"),
        ("early", "not valid yet"),
        ("replayed", "a replay"),
        ("killed", "was killed"),
        ("no locale", "no texts in fr"),
    ],
)
def test_what_cannot_be_trusted_is_not_shown(tmp_path: Path, harm: str, why: str) -> None:
    key, manifest = new_key(), tmp_path / "manifest.json"
    terms = {
        "expired": Terms(datetime.now(UTC) - timedelta(days=2), expires_days=-1),
        "early": Terms(datetime.now(UTC) + timedelta(days=1)),
    }.get(harm)
    if harm == "expired":
        terms = Terms(datetime.now(UTC) - timedelta(days=2), expires_days=1e-9)
    put(tmp_path, key, terms=terms)
    time.sleep(0.01)
    seen: dict[str, str] = {}
    data = next((tmp_path / "t").glob("*.json"))
    if harm == "changed":
        manifest.write_text(manifest.read_text().replace("cup", "cap"))
    elif harm == "truncated":
        manifest.write_bytes(manifest.read_bytes()[:50])
    elif harm == "bundle gone":
        data.unlink()
    elif harm == "bundle changed":
        data.write_text(data.read_text().replace("wins.", "WINS."))
    elif harm == "killed":
        kill(opened(str(tmp_path)), key=key)
    with serving(tmp_path) as (base, _):
        if harm == "replayed":
            seen = {f"stepwell {base}": "9"}
        told = in_node(
            LOAD,
            base=base,
            key=public(new_key() if harm == "forged" else key),
            values={"name": "Ann", "wins": 1},
            seen=seen,
            locale="fr" if harm == "no locale" else "en",
        )
    assert why in told["error"]


@needs_node
def test_a_roll_back_is_a_newer_version(tmp_path: Path) -> None:
    key = new_key()
    put(tmp_path, key)
    put(tmp_path, key, "{$name}: {$wins :integer}")
    rollback(opened(str(tmp_path)), 1, key=key)
    with serving(tmp_path) as (base, _):
        told = in_node(
            LOAD, base=base, key=public(key), values={"name": "Ann", "wins": 2}, seen={f"stepwell {base}": "2"}
        )
    assert (told["text"], told["version"]) == ("Ann has 2 wins.", 3)


@needs_node
def test_the_device_sends_nothing_of_its_reader(tmp_path: Path) -> None:
    """Identical requests for any two readers, and no value within."""
    key = new_key()
    put(tmp_path, key)
    captured = []
    readers = [({"name": "Ann Elk", "wins": 77}, "reader-1"), ({"name": "Zoë <b>", "wins": 1}, "läser-2")]
    for values, reader in readers:
        with serving(tmp_path) as (base, seen):
            assert "text" in in_node(LOAD, base=base, key=public(key), values=values, reader=reader)
            host = base.removeprefix("http://")
            captured.append(json.dumps(seen).replace(host, "HOST"))
    assert captured[0] == captured[1]
    assert "manifest.json" in captured[0]
    for values, reader in readers:
        assert not any(str(value) in captured[0].replace("HTTP/1.1", "") for value in (values["name"], reader))
    assert "77" not in captured[0]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture
def workerd(tmp_path: Path) -> Iterator[Callable[[str, str], str]]:
    if not (BIN / "workerd").exists():
        pytest.skip("workerd is not installed: make test gets it")
    started = []

    def start(base: str, key: str) -> str:
        port = free_port()
        command = [BIN / "workerd", "serve", EDGE / "config.capnp", "--socket-addr", f"http=127.0.0.1:{port}"]
        environment = os.environ | {"STEPWELL_ORIGIN": base, "STEPWELL_KEYS": key}
        log = (tmp_path / "workerd.txt").open("wb")
        started.append((subprocess.Popen(command, env=environment, stdout=log, stderr=log), log))
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return f"http://127.0.0.1:{port}"
        raise AssertionError((tmp_path / "workerd.txt").read_text())

    yield start
    for process, log in started:
        process.kill()
        process.wait()
        log.close()


def post(url: str, body: bytes) -> tuple[int, dict[str, Any], str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=20) as reply:
            return reply.status, json.load(reply), reply.headers["cache-control"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers["cache-control"]


def test_the_worker_fills_in_workerd(tmp_path: Path, workerd: Callable[[str, str], str]) -> None:
    key = new_key()
    put(tmp_path / "site", key)
    with serving(tmp_path / "site") as (base, _):
        url = workerd(base, public(key))
        asked = json.dumps({"reader": "r", "values": {"name": "A&B", "wins": 2}}).encode()
        status, told, lasts = post(f"{url}/fill/name%2Bwins?sink=html", asked)
        assert (status, told, lasts) == (
            200,
            {"text": "A&#38;B has 2 wins.", "variant": 0, "version": 1},
            "private, no-store",
        )
        assert post(f"{url}/fill/name%2Bwins", b'{"values": {"name": "Ann"}}')[:2] == (
            422,
            {"slot": "wins", "why": "missing", "version": 1},
        )
        assert post(f"{url}/fill/other", asked)[0] == 422
        assert post(f"{url}/fill/name%2Bwins?sink=exe", asked)[0] == 400
        assert post(f"{url}/fill/name%2Bwins?locale=xx", asked)[0] == 503
        for junk in (b"", b"{", b"[]", b'{"values": 3}', b'{"values": null}'):
            assert post(f"{url}/fill/name%2Bwins", junk)[0] == 400
        assert post(f"{url}/fill/name%2Bwins", b"x" * 100_000)[0] == 413
        assert post(f"{url}/elsewhere", asked)[0] == 404


def test_the_worker_shows_nothing_that_is_forged(tmp_path: Path, workerd: Callable[[str, str], str]) -> None:
    put(tmp_path / "site", new_key())
    with serving(tmp_path / "site") as (base, _):
        url = workerd(base, public(new_key()))
        assert post(f"{url}/fill/name%2Bwins", b'{"values": {"name": "Ann", "wins": 1}}')[0] == 503
