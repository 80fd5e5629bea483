"""The small pages beside the API: health, readiness, metrics, and the list of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.errors import BadRequest, StepwellError
from stepwell.gateway import admit, openai, reply
from stepwell.gateway.exchange import Exchange

if TYPE_CHECKING:
    from stepwell.gateway.answer import Door

TEXT = b"text/plain; charset=utf-8"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
JSON = b"application/json"
PAGES = frozenset({b"/healthz", b"/readyz", b"/metrics", b"/v1/models"})


class NoSuchPage(BadRequest):
    """Nothing is served at this path."""

    status = 404
    code = "not_found"


class WrongMethod(BadRequest):
    """The path is right, the method is not."""

    status = 405
    code = "method_not_allowed"


def show(door: Door, exchange: Exchange, path: bytes) -> None:
    """Answer one of the small pages. Raises AdmitError."""
    name = path.removeprefix(b"/v1/models/")
    if path not in PAGES and name == path:
        raise NoSuchPage(f"nothing is served at {path.decode('latin-1')!r}; the API is at /v1/chat/completions")
    if exchange.method not in (b"GET", b"HEAD"):
        wrong_method(door, exchange, b"GET, HEAD")
    elif path == b"/healthz":
        send(door, exchange, TEXT, b"ok\n")
    elif path == b"/readyz":
        why_not = door.ready()
        send(door, exchange, TEXT, (why_not or "ready").encode() + b"\n", 503 if why_not else 200)
    elif path == b"/metrics":
        send(door, exchange, PROMETHEUS, door.metrics())
    else:
        admit.caller(exchange.headers.get(b"authorization"), door.callers)
        send(door, exchange, JSON, models(door, "" if name == path else name.decode("utf-8", "replace")))


def models(door: Door, name: str) -> bytes:
    """The list of all models, or one of them by name. Raises UnknownModel."""
    if not name:
        return openai.models_body(list(door.stairs), door.started_s)
    admit.model(name, door.stairs)
    return openai.model_body(name, door.started_s)


def send(door: Door, exchange: Exchange, content_type: bytes, body: bytes, status: int = 200) -> None:
    """Write one page."""
    exchange.reply(status, reply.start_of(content_type, door.new_id()), body)


def wrong_method(door: Door, exchange: Exchange, allowed: bytes) -> None:
    """Refuse a method and name the right one."""
    error: StepwellError = WrongMethod(f"use {allowed.decode()} here")
    door.refused(error.code, error.status)
    head = reply.start_of(JSON, door.new_id()) + b"Allow: %b\r\n" % allowed
    exchange.reply(error.status, head, openai.error_body(error))
