"""What a generator replied: the text, or why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.engines.answers import Kept
from stepwell.quality.refusals import is_refusal, other_language
from stepwell.synth.recipe import Filters
from stepwell.types import Usage

MAX_SHOWN = 60


class Said(Struct, frozen=True):
    """What came back for a question: a text, or why there is none."""

    text: str
    fault: str = ""
    revision: str = ""
    usage: Usage | None = None
    usd: float = 0.0


class _Message(Struct):
    content: Any = None
    refusal: Any = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None


class _Reply(Struct):
    choices: list[_Choice]
    model: str = ""
    system_fingerprint: str | None = None


def read(kept: Kept, revision: str = "") -> Said:
    """The text of a reply, or why it has none."""
    usage, usd = kept.usage, kept.usd
    try:
        reply = msgspec.json.decode(kept.body, type=_Reply)
        choice = reply.choices[0]
    except (msgspec.DecodeError, LookupError) as error:
        return Said("", f"the reply is no chat completion ({error})", revision, usage, usd)
    revision = revision or " ".join(each for each in (reply.model, reply.system_fingerprint) if each)
    text = choice.message.content.strip() if isinstance(choice.message.content, str) else ""
    return Said(text, fault_of(choice, text), revision, usage, usd)


def fault_of(choice: _Choice, text: str) -> str:
    """Why a choice is no answer; "" where it is one."""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return "refused"
    if choice.finish_reason == "length":
        return "cut off at max_tokens"
    return "" if text else "empty"


def no_answer(text: str, wanted: Filters) -> str:
    """Why a text is no answer: it refuses, or is surely in another language; "" where it is one."""
    if wanted.refusals and is_refusal(text):
        return f"refused: {text[:MAX_SHOWN]}"
    other = other_language(text, wanted.language) if wanted.language else ""
    return f"in {other}, not {wanted.language}" if other else ""


def reasons(faults: Iterable[str]) -> str:
    """Why there are no texts, with how often."""
    return ", ".join(f"{num} {why}" for why, num in Counter(faults).most_common())
