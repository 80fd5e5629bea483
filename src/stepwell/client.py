"""A small client: asks a CDN for the public answer first, and POSTs to the gateway where there is none.

    from stepwell.client import Client

    client = Client("https://gateway.example.com", key="...", edge="https://cdn.example.com")
    told = client.ask({"model": "well", "messages": [{"role": "user", "content": "How deep?"}], "temperature": 0})
    told.json["choices"][0]["message"]["content"], told.public

For streams and everything else use any OpenAI SDK: the gateway speaks its API.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from hashlib import sha256
from time import monotonic
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.errors import EngineRefusal, EngineUnavailable
from stepwell.gateway import openai
from stepwell.types import Kind

PATHS: Mapping[Kind, str] = {kind: path.decode() for path, kind in openai.PATHS.items()}
REFRESH_S = 60.0
EDGE_TIMEOUT_S = 2.0
"""A CDN that does not answer by then is done without."""


class Told(Struct, frozen=True):
    """A reply."""

    body: bytes
    public: bool
    """True where it came from a public address; nothing was asked of a model, and no key was sent."""

    @property
    def json(self) -> Any:  # noqa: ANN401 - what OpenAI's API gives
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class Client:
    """Asks `edge` (a CDN in front of the gateway; the gateway itself will do), then `origin`. One thread at a time."""

    def __init__(self, origin: str, *, key: str = "", edge: str = "", timeout_s: float = 600.0) -> None:
        """`origin` and `edge` without `/v1`."""
        self.origin, self.edge = origin.rstrip("/"), (edge or origin).rstrip("/")
        self.key, self.timeout_s = key, timeout_s
        self.routes: dict[str, Any] = {}
        self.known_until_s = 0.0

    def ask(self, fields: Mapping[str, Any], kind: Kind = "chat") -> Told:
        """One question, whole. Raises BadRequest, EngineRefusal (the gateway said no) and EngineUnavailable."""
        body = msgspec.json.encode(fields)
        address = self.address(body, kind)
        found = got(f"{self.edge}/q/{address}") if address else None
        if found is not None:
            return Told(found, public=True)
        return Told(self.posted(body, kind), public=False)

    def address(self, body: bytes, kind: Kind) -> str:
        """Where the public answer would be; empty where there is none for sure. Raises BadRequest."""
        fields = openai.decoded(body)
        route = self.known_routes().get(fields.get("model", ""))
        sampled = kind != "embedding" and fields.get("temperature", 1) != 0
        if route is None or fields.get("stream") or (sampled and not route["sampled"]):
            return ""
        return f"{route['partition']}/{digest(bytes.fromhex(route['partition']), kind, body)}"

    def known_routes(self) -> dict[str, Any]:
        """The routes with a public side, looked up once a minute."""
        if monotonic() >= self.known_until_s:
            found = got(f"{self.edge}/q")
            self.routes = msgspec.json.decode(found)["routes"] if found else {}
            self.known_until_s = monotonic() + REFRESH_S
        return self.routes

    def posted(self, body: bytes, kind: Kind) -> bytes:
        """Ask the gateway. Raises EngineRefusal and EngineUnavailable."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.origin + PATHS[kind], body, headers)  # noqa: S310 - the caller's own
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:  # noqa: S310
                return bytes(reply.read())
        except urllib.error.HTTPError as error:
            said = error.read()
            what = f"{error.code}: {said[:200].decode('utf-8', 'replace')}"
            raise EngineRefusal(what, engine=self.origin, status=error.code, body=said) from error
        except OSError as error:
            raise EngineUnavailable(str(error), engine=self.origin) from error


def digest(partition: bytes, kind: Kind, body: bytes) -> str:
    """The digest of a question in a public partition, in hex: docs/digest.md. Raises BadRequest."""
    return sha256(b"%b%b\0%b" % (partition, kind.encode(), openai.canonical(openai.decoded(body)))).hexdigest()


def got(url: str) -> bytes | None:
    """What a CDN has at an address; None where it has nothing, or fails."""
    try:
        with urllib.request.urlopen(url, timeout=EDGE_TIMEOUT_S) as reply:  # noqa: S310 - the caller's own
            return bytes(reply.read())
    except OSError:
        return None
