"""multipart/form-data (RFC 7578) in a buffer: where each part begins and ends. Nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from mmap import mmap

from msgspec import Struct

from stepwell.errors import BadRequest

MOST_PARTS = 32
MOST_HEAD_BYTES = 8 * 1024
QUOTED = {"%22": '"', "%0D": "\r", "%0A": "\n"}
"""What browsers and clients write in names (WHATWG, multipart/form-data encoding)."""


class Part(Struct, frozen=True):
    """One field of the form; `filename` is None where it is no file."""

    name: str
    filename: str | None
    start: int
    end: int


def parts(body: bytes | mmap, content_type: str) -> list[Part]:
    """The parts of a form, in order. Raises BadRequest."""
    boundary = param(content_type, "boundary") if content_type.lower().startswith("multipart/form-data") else ""
    if not boundary:
        raise BadRequest("send a form: Content-Type: multipart/form-data; boundary=…")
    delimiter = b"--" + boundary.encode("latin-1", "replace")
    found: list[Part] = []
    for start, end in between(body, delimiter):
        if len(found) == MOST_PARTS:
            raise BadRequest(f"a form of more than {MOST_PARTS} parts")
        found.append(part(body, start, end))
    return found


def between(body: bytes | mmap, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each part with its head. Raises BadRequest where the form is cut off."""
    at = 0 if body[: len(delimiter)] == delimiter else body.find(b"\r\n" + delimiter) + 2
    if at == 1:
        raise BadRequest("the form does not begin with its boundary")
    while True:
        behind = at + len(delimiter)
        if body[behind : behind + 2] == b"--":
            return
        start = body.find(b"\r\n", behind, behind + 1024) + 2
        end = next_delimiter(body, delimiter, start - 2)
        if start == 1 or end < 0:
            raise BadRequest("the form is cut off: its last boundary is missing")
        yield start, end
        at = end + 2


def next_delimiter(body: bytes | mmap, delimiter: bytes, start: int) -> int:
    """Where the line break in front of the next delimiter stands; one that goes on is a part's own text."""
    while (end := body.find(b"\r\n" + delimiter, start)) >= 0:
        behind = end + 2 + len(delimiter)
        line = bytes(body[behind : behind + 64])
        if line.startswith(b"--") or line.lstrip(b" \t").startswith(b"\r\n"):
            return end
        start = behind
    return -1


def part(body: bytes | mmap, start: int, end: int) -> Part:
    """One part, told by its head. Raises BadRequest."""
    break_at = body.find(b"\r\n\r\n", start, min(end + 2, start + MOST_HEAD_BYTES))
    if break_at < 0:
        raise BadRequest("a part of the form has no head")
    head = bytes(body[start:break_at]).decode("utf-8", "replace")
    for line in head.split("\r\n"):
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            filename = param(value, "filename")
            return Part(param(value, "name") or "", filename, break_at + 4, max(end, break_at + 4))
    raise BadRequest("a part of the form has no Content-Disposition")


def param(value: str, name: str) -> str | None:
    """A parameter of a header's value."""
    message = Message()
    message["content-disposition"] = value.replace("\n", " ").replace("\r", " ").strip()
    found = message.get_param(name, header="content-disposition")
    if isinstance(found, tuple):  # RFC 2231: charset, language, value
        charset, _, text = found
        found = text.encode("latin-1", "replace").decode(charset or "utf-8", "replace") if charset else text
    for escaped, plain in QUOTED.items():
        found = found.replace(escaped, plain) if isinstance(found, str) else found
    return found
