"""What may stand where: values are cleaned on their way in, texts are escaped for the place they go to."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

Sink = Literal["plain", "html", "attribute", "json", "url", "sms"]
SINKS: tuple[Sink, ...] = ("plain", "html", "attribute", "json", "url", "sms")

_CONTROL = (range(0x20), range(0x7F, 0xA0), (0x2028, 0x2029))
_REMOVED = ((0x200E, 0x200F, 0x061C, 0xFEFF), range(0x202A, 0x202F), range(0x2066, 0x206A), range(0xD800, 0xE000))
_CLEAN: dict[int, str] = {code: " " for codes in _CONTROL for code in codes} | {
    code: "" for codes in _REMOVED for code in codes
}
_HTML = {char: f"&#{ord(char)};" for char in "&<>\"'`="}
_JSON = {chr(code): f"\\u{code:04x}" for code in (*range(0x20), *map(ord, '"\\<>&'), 0x2028, 0x2029)}
_SMS = dict(zip("\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00a0\u202f\u2009", "''\"\"--…   ", strict=True)) | {
    "\u2026": "..."
}
_TABLES = {
    "html": str.maketrans(_HTML),
    "attribute": str.maketrans(_HTML),
    "json": str.maketrans(_JSON),
    "sms": str.maketrans(_SMS),
}


def clean(text: str) -> str:
    """A value without control characters, direction marks, lone surrogates and outer spaces."""
    # A printable text holds none of them: one pass in C for nearly every value.
    return text.strip(" ") if text.isprintable() else text.translate(_CLEAN).strip(" ")


def escaped(text: str, sink: Sink) -> str:
    """A text as its sink wants it."""
    if sink == "plain":
        return text
    if sink == "url":
        return quote(text, safe="!~*'()")
    return text.translate(_TABLES[sink])
