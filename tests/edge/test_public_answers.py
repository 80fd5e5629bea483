"""Public answers as strangers get them: from the gateway, through nginx, and by the two clients."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Gateway, Start, running
from servers import RedisServer
from stepwell.client import Client, digest
from stepwell.errors import BadRequest
from stepwell.gateway import openai

ROOT = Path(__file__).parents[2]
CONFIG = """
[server]
port = 0

[[keys]]
tenant = "acme"
env = "KEY_0"
[[keys]]
tenant = "acme"
env = "KEY_1"
[[keys]]
tenant = "other"
env = "KEY_2"
[[keys]]
tenant = "other"
env = "KEY_3"

[engines.scripted]
type = "scripted"
reply = "The well is deep."

[routes.well]
engines = ["scripted"]
price = "gpt-4o-mini"
share = "public"

[routes.own]
engines = ["scripted"]
price = "gpt-4o-mini"
"""
KEYS = {f"KEY_{number}": f"secret-{number}" for number in range(4)}
ASK: dict[str, Any] = {
    "model": "well",
    "messages": [{"role": "user", "content": "How deep is the well?"}],
    "temperature": 0,
}
Reply = tuple[int, dict[str, str], bytes]


def get(port: int, path: str, method: str = "GET", **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def post(port: int, key: str, **fields: Any) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps({**ASK, **fields}), headers)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def address(port: int, **fields: Any) -> str:
    routes = json.loads(get(port, "/q")[2])["routes"]
    partition = routes["well"]["partition"]
    name = digest(bytes.fromhex(partition), "chat", json.dumps({**ASK, **fields}).encode())
    return f"/q/{partition}/{name}"


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def made_public(gateway: Gateway, **fields: Any) -> str:
    where = address(gateway.port, **fields)
    for key in list(KEYS.values())[:3]:
        assert post(gateway.port, key, **fields)[0] == 200
    until(lambda: get(gateway.port, where)[0] == 200)
    return where


def test_three_principals_make_an_answer_public_and_everybody_gets_the_same(serve: Start) -> None:
    gateway = serve(CONFIG, **KEYS)
    port, where = gateway.port, address(gateway.port)
    assert json.loads(get(port, "/q")[2])["routes"].keys() == {"well"}, "own has no public side"
    first = [post(port, "secret-0") for _ in range(3)]
    assert [told[1]["cache-status"].partition(";")[2].split(";")[0].strip() for told in first] == [
        "fwd=miss",
        "hit",
        "hit",
    ]
    post(port, "secret-1")
    status, headers, body = get(port, where)
    assert (status, headers["cache-control"]) == (404, "public, max-age=5")
    assert json.loads(body)["error"]["code"] == "not_found"
    assert "fwd=miss" in post(port, "secret-2")[1]["cache-status"], "until now, each one's answer is its own"
    until(lambda: get(port, where)[0] == 200)

    plain, keyed = get(port, where), get(port, where, Authorization="Bearer secret-3", Cookie="a=b")
    assert plain[2] == keyed[2]
    assert {**plain[1], "date": ""} == {**keyed[1], "date": ""}, "whoever asks is told the same"
    assert json.loads(plain[2])["choices"][0]["message"]["content"] == "The well is deep."
    assert "; hit" in post(port, "secret-3")[1]["cache-status"], "nor does a fourth one pay"
    assert "fwd=miss" in post(port, "secret-3", model="own")[1]["cache-status"]


def test_the_headers_speak_the_words_of_caches(serve: Start) -> None:
    gateway = serve(CONFIG, **KEYS)
    port, where = gateway.port, made_public(gateway)
    status, headers, body = get(port, where)
    name = sha256(body).hexdigest()
    assert headers["etag"] == f'"{name}"'
    assert headers["cache-control"] == "public, max-age=60, stale-while-revalidate=60"
    assert headers["cdn-cache-control"] == "public, max-age=60, stale-while-revalidate=60, stale-if-error=3600"
    assert headers["surrogate-key"].split() == headers["cache-tag"].split(",")
    assert "scripted" not in str(headers), "tags are named by their hashes"
    assert headers["access-control-allow-origin"] == "*"
    assert "x-request-id" not in headers
    assert "set-cookie" not in headers

    for told in (f'"{name}"', f'W/"{name}"', f'"x", "{name}"', "*"):
        status, headers, body_304 = get(port, where, If_None_Match=told)
        assert (status, body_304, headers["etag"]) == (304, b"", f'"{name}"')
        assert "content-length" not in headers
    assert get(port, where, If_None_Match='"x"')[0] == 200
    status, headers, nothing = get(port, where, "HEAD")
    assert (status, nothing, headers["content-length"]) == (200, b"", str(len(body)))
    status, headers, _ = get(port, where, "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")

    status, headers, kept = get(port, f"/a/{name}")
    assert (status, kept) == (200, body)
    assert headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One that may be stopped."""
    yield from running(RedisServer)


def test_votes_count_across_gateways_that_share_a_store(serve: Start, own_redis: RedisServer) -> None:
    config = f'{CONFIG}[cache]\nurl = "{own_redis.url}"\n'
    first, second = (serve(config, name=name, **KEYS) for name in ("first", "second"))
    where = address(first.port)
    assert address(second.port) == where, "one address at every gateway"
    post(first.port, "secret-0")
    post(second.port, "secret-1")
    assert [get(each.port, where)[0] for each in (first, second)] == [404, 404]
    post(first.port, "secret-2")
    until(lambda: get(first.port, where)[0] == get(second.port, where)[0] == 200)
    assert get(first.port, where)[2] == get(second.port, where)[2]
    own_redis.stop()
    other = address(first.port, messages=[{"role": "user", "content": "How old?"}])
    status, headers, _ = get(second.port, other)
    assert (status, headers["cache-control"]) == (503, "no-store")
    assert get(first.port, where)[0] == 200, "what is in memory is still given"


@pytest.mark.parametrize(
    "path", ["/q/", "/q/x", "/q/x/y/z", f"/q/{'0' * 64}/{'0' * 63}G", f"/q/{'A' * 64}/{'0' * 64}", "/a/", "/a/..", f"/a/{'0' * 64}", f"/q/{'0' * 64}/{'0' * 64}"]
)  # fmt: skip
def test_what_is_no_address_is_not_there(serve: Start, path: str) -> None:
    gateway = serve(CONFIG, **KEYS)
    status, headers, _ = get(gateway.port, path)
    assert (status, headers["cache-control"]) == (404, "public, max-age=5")


def test_nothing_private_can_be_addressed(serve: Start) -> None:
    gateway = serve(CONFIG, **KEYS)
    port = gateway.port
    made_public(gateway)
    secret = "I am anna.berg@example.com: how deep is the well?"
    for key in KEYS.values():
        post(port, key, messages=[{"role": "user", "content": secret}])
        post(port, key, model="own")
    time.sleep(0.5)
    assert get(port, address(port, messages=[{"role": "user", "content": secret}]))[0] == 404
    partition = json.loads(get(port, "/q")[2])["routes"]["well"]["partition"]
    body = json.dumps({**ASK, "model": "own"}).encode()
    assert get(port, f"/q/{partition}/{digest(bytes.fromhex(partition), 'chat', body)}")[0] == 404


def test_without_public_routes_there_are_no_such_pages(serve: Start) -> None:
    gateway = serve(CONFIG.replace('share = "public"', 'share = "tenant"'), **KEYS)
    assert get(gateway.port, "/q")[0] == 404
    assert json.loads(get(gateway.port, "/q")[2])["error"]["message"].startswith("nothing is served at")


NGINX = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_cache_path {folder}/cache keys_zone=answers:1m inactive=1h;
  server {{
    listen 127.0.0.1:{port};
    location ~ ^/[qa](/|$) {{
      proxy_pass http://127.0.0.1:{origin};
      proxy_cache answers;
      proxy_cache_revalidate on;
      proxy_cache_lock on;
      proxy_cache_use_stale error timeout http_503 updating;
      proxy_cache_background_update on;
      add_header X-Cache $upstream_cache_status always;
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """An nginx in front of a port; gives its own."""
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(binary).exists():
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    running: list[subprocess.Popen[bytes]] = []

    def start(origin: int) -> int:
        folder, port = tmp_path / "nginx", free_port()
        user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not write here
        folder.mkdir()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, origin=origin, user=user))
        command = [binary, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        running.append(subprocess.Popen(command))
        until(lambda: listens(port))
        return port

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_nginx_answers_without_the_gateway(serve: Start, nginx: Callable[[int], int]) -> None:
    gateway = serve(CONFIG, **KEYS)
    edge, where = nginx(gateway.port), made_public(gateway)
    told = [get(edge, where) for _ in range(3)]
    assert [reply[1]["x-cache"] for reply in told] == ["MISS", "HIT", "HIT"]
    assert told[0][2] == told[1][2]
    assert get(edge, where, If_None_Match=told[0][1]["etag"])[0] == 304
    name = sha256(told[0][2]).hexdigest()
    assert get(edge, f"/a/{name}")[1]["x-cache"] == "MISS"
    assert [get(edge, f"/q/{'0' * 64}/{'0' * 64}")[1]["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    gateway.stop()
    for path in (where, f"/a/{name}"):
        status, headers, body = get(edge, path)
        assert (status, headers["x-cache"], body) == (200, "HIT", told[0][2]), "the gateway is not even there"


def test_a_killed_answer_is_gone_and_the_clients_ask_again(serve: Start) -> None:
    gateway = serve(CONFIG, **KEYS)
    where = made_public(gateway)
    name = sha256(get(gateway.port, where)[2]).hexdigest()
    command = [sys.executable, "-m", "stepwell.cli", "cache", "invalidate", "--tag", "model:well"]
    subprocess.run(command, check=True, cwd=gateway.folder, env={**os.environ, **KEYS})
    until(lambda: get(gateway.port, where)[0] == 404)
    assert get(gateway.port, f"/a/{name}")[0] == 410


def test_the_python_client_asks_the_edge_first(serve: Start, nginx: Callable[[int], int]) -> None:
    gateway = serve(CONFIG, **KEYS)
    edge = f"http://127.0.0.1:{nginx(gateway.port)}"
    made_public(gateway)
    client = Client(f"http://127.0.0.1:{gateway.port}", key="secret-3", edge=edge)
    told = client.ask(ASK)
    assert told.public
    assert told.json["choices"][0]["message"]["content"] == "The well is deep."
    assert not client.ask({**ASK, "messages": [{"role": "user", "content": "How old?"}]}).public
    assert not client.ask({**ASK, "temperature": 0.7}).public
    assert not client.ask({**ASK, "model": "own"}).public
    keyless = Client(f"http://127.0.0.1:{gateway.port}", edge=edge)
    assert keyless.ask(ASK).public
    gateway.stop()
    assert keyless.ask(ASK).public, "the edge is enough"


MIN_NODE = 20


def node_version() -> int:
    if shutil.which("node") is None:
        return 0
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.removeprefix("v").partition(".")[0])


needs_node = pytest.mark.skipif(node_version() < MIN_NODE, reason=f"node {MIN_NODE} or newer is not installed")


def in_node(script: str, **values: Any) -> Any:
    whole = f"""
import {{ asker, canonical, digest }} from "{ROOT}/edge/ask.js";
const given = {json.dumps(values)};
console.log(JSON.stringify(await (async () => {{ {script} }})()));
"""
    done = subprocess.run(["node", "--input-type=module", "-"], input=whole, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@needs_node
def test_javascript_passes_the_vectors() -> None:
    told = json.loads((ROOT / "docs" / "digest.json").read_text())
    script = "return Promise.all(given.vectors.map(async (v) => [canonical(v.body), await digest(given.partition, v.kind, v.body)]));"
    wanted = [[None, None] if "inexact" in v else [v["canonical"], v["digest"]] for v in told["vectors"]]
    assert in_node(script, **told) == wanted


@needs_node
def test_javascript_writes_numbers_as_the_gateway_does() -> None:
    chance = Random(1)
    numbers = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-30, 15) for _ in range(5000)]
    numbers = [each for each in numbers if abs(each) <= 2**53 - 1] + [5e-324, 1e-6, 1e-7, 9.999e-7, -0.0, 2.0**53 - 1]
    body = json.dumps({"x": numbers})
    assert (
        in_node("return canonical(given.body);", body=body) == openai.canonical(openai.decoded(body.encode())).decode()
    )


NUMBER = st.floats(1 - 2.0**53, 2.0**53 - 1) | st.integers(1 - 2**53, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*openai.DEFAULTS, *openai.OUTSIDE, "seed", "stop", "metadata"])


@needs_node
@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(FIELDS, ANYTHING, max_size=6), min_size=1, max_size=8))
def test_javascript_agrees_with_the_gateway_on_any_body(bodies: list[dict[str, Any]]) -> None:
    written = [json.dumps(each, ensure_ascii=False) for each in bodies]
    wanted = []
    for each in written:
        try:
            wanted.append(openai.canonical(openai.decoded(each.encode())).decode())
        except BadRequest:  # a sampling number that is none
            wanted.append(None)
    assert in_node("return given.bodies.map((body) => canonical(body));", bodies=written) == wanted


@needs_node
def test_the_javascript_client_asks_the_edge_first(serve: Start, nginx: Callable[[int], int]) -> None:
    gateway = serve(CONFIG, **KEYS)
    edge = nginx(gateway.port)
    made_public(gateway)
    script = """
const ask = asker(given.origin, { edge: given.edge, key: given.key });
const told = [];
for (const body of given.bodies) {
  const reply = await ask(body);
  told.push([reply.headers.get("x-cache"), (await reply.json()).choices[0].message.content]);
}
return told;
"""
    bodies = [
        ASK,
        {**ASK, "stream": False, "n": 1},
        {**ASK, "messages": [{"role": "user", "content": "How old?"}]},
        {**ASK, "model": "own"},
    ]
    told = in_node(
        script,
        origin=f"http://127.0.0.1:{gateway.port}",
        edge=f"http://127.0.0.1:{edge}",
        key="secret-3",
        bodies=bodies,
    )
    assert told == [
        ["MISS", "The well is deep."],
        ["HIT", "The well is deep."],
        [None, "The well is deep."],
        [None, "The well is deep."],
    ]


@pytest.fixture
def workerd() -> Iterator[Callable[[str], int]]:
    """The worker in front of a gateway; gives its port."""
    binary = ROOT / "edge" / "node_modules" / ".bin" / "workerd"
    if not binary.exists():
        pytest.skip("workerd is not installed: make test gets it")
    running: list[subprocess.Popen[bytes]] = []

    def start(gateway: str) -> int:
        port = free_port()
        command = [binary, "serve", ROOT / "edge" / "config.capnp", "--socket-addr", f"http=127.0.0.1:{port}"]
        named = {"STEPWELL_GATEWAY": gateway, "STEPWELL_ORIGIN": "", "STEPWELL_KEYS": ""}
        running.append(subprocess.Popen(command, env={**os.environ, **named}))
        until(lambda: listens(port))
        return port

    yield start
    for process in running:
        process.kill()
        process.wait(10)


def test_the_worker_answers_what_is_public_and_passes_the_rest_on(
    serve: Start, nginx: Callable[[int], int], workerd: Callable[[str], int]
) -> None:
    gateway = serve(CONFIG, **KEYS)
    edge = nginx(gateway.port)
    made_public(gateway)
    worker = workerd(f"http://127.0.0.1:{edge}")
    hits = [post(worker, "nobody's key") for _ in range(2)]
    assert [(status, headers["x-cache"]) for status, headers, _ in hits] == [(200, "MISS"), (200, "HIT")]
    assert post(worker, "secret-0", model="own")[0] == 404, "this nginx passes on nothing but what is public"
    through = workerd(f"http://127.0.0.1:{gateway.port}")
    status, headers, body = post(through, "secret-3", model="own")
    assert (status, headers["stepwell-step"]) == (200, "large")
    assert json.loads(body)["choices"][0]["message"]["content"] == "The well is deep."
    assert post(through, "nobody's key", model="own")[0] == 401
    assert get(through, "/q")[0] == 200


@needs_node
def test_the_javascript_client_does_without_an_edge_that_fails(serve: Start) -> None:
    gateway = serve(CONFIG, **KEYS)
    script = """
const ask = asker(given.origin, { edge: "http://127.0.0.1:9", key: given.key });
return (await ask(given.body)).status;
"""
    assert in_node(script, origin=f"http://127.0.0.1:{gateway.port}", key="secret-0", body=ASK) == 200
