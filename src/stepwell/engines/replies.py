"""What a chat completion says: its text, or why there is none; and, where they were asked for, its tokens' odds."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

EMPTY, REFUSED, CUT_OFF = "empty", "refused", "cut off at max_tokens"


class Odds(Struct, frozen=True):
    """A token and its log-probability."""

    token: str
    logprob: float
    raw: list[int] | None = msgspec.field(default=None, name="bytes")

    @property
    def data(self) -> bytes:
        """Its bytes: a token may be a part of a letter."""
        return self.token.encode() if self.raw is None else bytes(self.raw)


class Place(Odds, frozen=True):
    """A token of the text, with those that might have stood there."""

    top_logprobs: list[Odds] = []


class Said(Struct, frozen=True):
    """What came back: a text, or in `fault` why there is none to use."""

    text: str
    fault: str = ""
    revision: str = ""
    places: tuple[Place, ...] = ()


class _Message(Struct):
    content: Any = None
    refusal: Any = None


class _Content(Struct):
    content: list[Place] | None = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Content | None = None


class _Reply(Struct):
    choices: list[_Choice]
    model: str = ""
    system_fingerprint: str | None = None


def read(body: bytes) -> Said:
    """Read a chat completion; junk is a fault like any other."""
    try:
        reply = msgspec.json.decode(body, type=_Reply)
        choice = reply.choices[0]
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError) as error:
        return Said("", f"no chat completion: {error}")
    text = choice.message.content.strip() if isinstance(choice.message.content, str) else ""
    places = tuple(choice.logprobs.content or ()) if choice.logprobs else ()
    revision = " ".join(each for each in (reply.model, reply.system_fingerprint) if each)
    return Said(text, fault_of(choice, text), revision, places)


def fault_of(choice: _Choice, text: str) -> str:
    """Why a choice is no answer; "" where it is one."""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return REFUSED
    if choice.finish_reason == "length":
        return CUT_OFF
    return "" if text else EMPTY
