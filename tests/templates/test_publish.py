"""Publishing to a folder and to a real S3 server: readers see the old campaign or the new one, never half."""

from __future__ import annotations

import base64
import gzip
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
from datetime import UTC, datetime, timedelta
from pathlib import Path

import brotli
import obstore
import pytest
from obstore.store import S3Store

from stepwell.errors import ConfigError, StoreError, TemplateError
from stepwell.signing import SigningKey, new_key, signing_key, trusted
from stepwell.store.objects import Objects, opened
from stepwell.templates.compile import bundle
from stepwell.templates.edge_config import Edge, nginx
from stepwell.templates.manifest import NAME, sign, verify
from stepwell.templates.packed import delta_key, unzstd
from stepwell.templates.publish import Terms, kill, publish, rollback
from stepwell.templates.published import read, status
from stepwell.templates.schema import Schema, Slot

SCHEMA = Schema(name="cup", slots=(Slot(name="name", kind="text"),), channel="page")
OLD = {"en": bundle(SCHEMA, "en", {"t": ["Hello {$name}, the old one."]})}
NEW = {"en": bundle(SCHEMA, "en", {"t": ["Hello {$name}, the new one."]})}


def keys(key: SigningKey) -> dict[str, object]:
    return trusted((), key)  # type: ignore[return-value]


def seen(objects: Objects, key: SigningKey) -> dict[str, bytes]:
    return read(objects, trusted((), key))[1]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A real S3 server on loopback, with conditional writes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    url = f"http://127.0.0.1:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/texts", method="PUT"), timeout=10).close()
    yield url
    server.terminate()
    server.wait()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objects:
    if request.param == "folder":
        return opened(str(tmp_path / "site"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3"))
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    return opened(f"s3://texts/{tmp_path.name}")


def test_publish_update_roll_back_and_kill(place: Objects) -> None:
    key = new_key()
    assert publish(place, OLD, campaign="cup", key=key).version == 1
    assert publish(place, NEW, campaign="cup", key=key).version == 2
    assert seen(place, key) == NEW
    held = place.get(delta_key(NEW["en"], OLD["en"]))
    assert held is not None
    assert unzstd(held.data, OLD["en"]) == NEW["en"]
    assert rollback(place, 1, key=key).version == 3
    assert seen(place, key) == OLD
    assert kill(place, key=key).state == "killed"
    told = status(place, trusted((), key))
    assert not told.serving
    assert [each.version for each in told.past] == [4, 3, 2, 1]
    assert publish(place, NEW, campaign="cup", key=key).state == "live"
    path = read(place, trusted((), key))[0].bundles["en"].path
    forms = {end: place.get(path + end) for end in (".br", ".gz")}
    assert all(forms.values())
    assert brotli.decompress(forms[".br"].data) == gzip.decompress(forms[".gz"].data) == NEW["en"]  # type: ignore[union-attr]


def test_objects_are_swapped_only_by_whom_has_read_them(place: Objects) -> None:
    assert place.create("a/b.json", b"1", {})
    assert not place.create("a/b.json", b"2", {})
    held = place.get("a/b.json")
    assert held is not None
    assert held.data == b"1"
    assert place.swap("a/b.json", b"3", {}, held.tag)
    assert not place.swap("a/b.json", b"4", {}, held.tag)
    assert not place.swap("a/b.json", b"4", {}, None)
    assert place.get("nobody") is None
    assert place.sizes("a/") == {"a/b.json": 1}
    for key in ("../x", "/x", "a//b", "", "a b"):
        with pytest.raises(StoreError):
            place.get(key)


def test_stored_headers(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ENDPOINT_URL", s3),
        ("ACCESS_KEY_ID", "test"),
        ("SECRET_ACCESS_KEY", "test"),
        ("REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    manifest = publish(opened("s3://texts/headers"), OLD, campaign="cup", key=new_key())
    store = S3Store("texts", prefix="headers", client_options={"allow_http": True})
    got = obstore.get(store, manifest.bundles["en"].path + ".br").attributes
    assert got["Content-Encoding"] == "br"
    assert "immutable" in got["Cache-Control"]
    assert "stale-while-revalidate" in obstore.get(store, NAME).attributes["Cache-Control"]


KILLED = """
import os, signal, sys
from pathlib import Path
from stepwell.store.folder import Folder
from stepwell.store.objects import opened
from stepwell.templates.publish import publish
from stepwell.signing import signing_key
num, place, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
whole = Folder.lay
count = 0
def lay(self, path, data, **more):
    global count
    count += 1
    if count == num:
        (self.root / ".incoming").write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, path, data, **more)
    if count == num - 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
Folder.lay = lay
publish(opened(place), {"en": Path(file).read_bytes()}, campaign="cup", key=signing_key("KEY"))
print("done", count)
"""


def test_killed_at_each_step_readers_see_the_old_or_the_new(tmp_path: Path) -> None:
    key = new_key()
    env = os.environ | {"KEY": base64.b64encode(key.private.private_bytes_raw()).decode()}
    (tmp_path / "new.json").write_bytes(NEW["en"])
    for step in range(1, 20):
        site = tmp_path / f"site{step}"
        publish(opened(str(site)), OLD, campaign="cup", key=key)
        command = [sys.executable, "-c", KILLED, str(step), str(site), str(tmp_path / "new.json")]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            assert seen(opened(str(site)), key) == NEW
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert seen(opened(str(site)), key) == OLD
        publish(opened(str(site)), NEW, campaign="cup", key=key)
        assert seen(opened(str(site)), key) == NEW
    assert step == 8  # delta, br, zst, gz, plain, version, manifest; then it is through


def test_a_full_disk_leaves_the_old_campaign(tmp_path: Path) -> None:
    key = new_key()
    site = tmp_path / "site"
    publish(opened(str(site)), OLD, campaign="cup", key=key)
    big = {"en": bundle(SCHEMA, "en", {"t": [f"{{$name}} {os.urandom(60_000).hex()}"]})}
    script = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from pathlib import Path\nfrom stepwell.store.objects import opened\nfrom stepwell.errors import StoreError\n"
        "from stepwell.templates.publish import publish\nfrom stepwell.signing import signing_key\n"
        "try: publish(opened(sys.argv[1]), {'en': Path(sys.argv[2]).read_bytes()}, campaign='cup', key=signing_key('KEY'))\n"
        "except StoreError as error: print(error); sys.exit(3)\n"
    )
    (tmp_path / "big.json").write_bytes(big["en"])
    env = os.environ | {"KEY": base64.b64encode(key.private.private_bytes_raw()).decode()}
    command = [sys.executable, "-c", script, str(site), str(tmp_path / "big.json")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "cannot be written" in done.stdout
    assert seen(opened(str(site)), key) == OLD


def test_of_two_publishers_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    key = new_key()
    site = opened(str(tmp_path))
    publish(site, OLD, campaign="cup", key=key)

    class Slow:
        """Somebody else publishes while this one is on its way."""

        def __getattr__(self, name: str) -> object:
            return getattr(site, name)

        def swap(self, *given: object) -> bool:
            publish(site, OLD, campaign="cup", key=key)
            return site.swap(*given)  # type: ignore[arg-type]

    with pytest.raises(TemplateError, match="somebody else published"):
        publish(Slow(), NEW, campaign="cup", key=key)  # type: ignore[arg-type]
    assert seen(site, key) == OLD


def test_what_readers_must_not_believe(tmp_path: Path) -> None:
    key, site = new_key(), opened(str(tmp_path))
    manifest = publish(site, OLD, campaign="cup", key=key)
    data = (tmp_path / NAME).read_bytes()
    now = datetime.now(UTC)
    assert verify(data, trusted((), key), now=now) == manifest
    for harm, why in (
        (data.replace(b"cup", b"cap"), "signature"),
        (data[:-20], "no signed manifest"),
        (b"", "no signed manifest"),
        (sign(manifest, new_key()), "not trusted"),
    ):
        with pytest.raises(TemplateError, match=why):
            verify(harm, trusted((), key), now=now)
    with pytest.raises(TemplateError, match="expired"):
        verify(data, trusted((), key), now=now + timedelta(days=40))
    with pytest.raises(TemplateError, match="not valid before"):
        verify(data, trusted((), key), now=now - timedelta(days=1))
    with pytest.raises(TemplateError, match="put back"):
        verify(data, trusted((), key), now=now, newest=2)
    (tmp_path / manifest.bundles["en"].path).unlink()
    with pytest.raises(TemplateError, match="missing"):
        seen(site, key)


def test_wrong_orders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, site = new_key(), opened(str(tmp_path))
    for wrong in ({"en": b"{}"}, {"de": OLD["en"]}, {"en": b"\xff"}):
        with pytest.raises(TemplateError):
            publish(site, wrong, campaign="cup", key=key)
    publish(site, OLD, campaign="cup", key=key)
    with pytest.raises(TemplateError, match="holds the campaign"):
        publish(site, OLD, campaign="other", key=key)
    with pytest.raises(TemplateError, match="not trusted"):
        publish(site, NEW, campaign="cup", key=new_key())
    with pytest.raises(TemplateError, match="no version 9"):
        rollback(site, 9, key=key)
    for url in ("ftp://x/y", "s3://"):
        with pytest.raises(StoreError):
            opened(url)
    monkeypatch.setenv("KEY", "short")
    with pytest.raises(ConfigError, match="no Ed25519 key"):
        signing_key("KEY")
    with pytest.raises(ConfigError, match="holds no key"):
        signing_key("NOBODY")
    assert Terms().span()[0] < Terms().span()[1]


NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
BROTLI = Path("/usr/lib/nginx/modules/ngx_http_brotli_static_module.so")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx-light")
def test_nginx_serves_and_caches_what_is_published(tmp_path: Path) -> None:
    key, site = new_key(), tmp_path / "site"
    manifest = publish(opened(str(site)), OLD, campaign="cup", key=key)
    ports = []
    for _ in range(2):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            ports.append(held.getsockname()[1])
    has_brotli = BROTLI.exists()
    text = nginx(Edge(site, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", tmp_path / "cache", brotli=has_brotli))
    load = f"load_module {BROTLI};\n" if has_brotli else ""
    user = "user root;\n" if os.getuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(
        f"{load}{user}pid {tmp_path}/pid;\nerror_log {tmp_path}/error.txt;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{text}}}\n"
    )
    command = [str(NGINX), "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    server = subprocess.Popen(command)
    try:
        for port in ports:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
        path = manifest.bundles["en"].path
        encoding = "br" if has_brotli else "gzip"
        unpacked = brotli.decompress if has_brotli else gzip.decompress
        for port in ports:
            url = f"http://127.0.0.1:{port}"
            for again in range(2):
                headers, body = get(f"{url}/{path}", {"Accept-Encoding": encoding, "Cookie": f"reader={again}"})
                assert unpacked(body) == OLD["en"]
                assert headers["cache-control"] == "public, max-age=31536000, immutable"
                assert headers["access-control-allow-origin"] == "*"
                assert headers["content-type"] == "application/json"
                assert "set-cookie" not in headers
            headers, body = get(f"{url}/{NAME}", {})
            assert json.loads(body)["key"] == key.id
            assert headers["cache-control"].startswith("public, max-age=30, stale-while-revalidate=300")
        assert "HIT" in get(f"http://127.0.0.1:{ports[1]}/{path}", {"Accept-Encoding": encoding})[0]["cache-status"]
        assert b"old one" in get(f"http://127.0.0.1:{ports[1]}/{path}", {})[1]
    finally:
        server.terminate()
        server.wait()


def get(url: str, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as reply:
        return {name.lower(): value for name, value in reply.headers.items()}, reply.read()
