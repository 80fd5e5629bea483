"""What a generator replied: the text, or why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from stepwell.engines.answers import Kept
from stepwell.quality.refusals import is_refusal, other_language
from stepwell.types import Usage


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
    if choice.message.refusal or choice.finish_reason == "content_filter" or is_refusal(text):
        return "refused"
    if choice.finish_reason == "length":
        return "cut off at max_tokens"
    return "" if text else "empty"


def in_language(answer: Said, wanted: str) -> Said:
    """The answer, with its fault where it is surely in another language."""
    other = other_language(answer.text, wanted) if wanted and not answer.fault else ""
    return replace(answer, fault=f"in {other}, not {wanted}") if other else answer


def reasons(answers: Iterable[Said]) -> str:
    """Why there are no texts, with how often."""
    return ", ".join(f"{num} {why}" for why, num in Counter(answer.fault for answer in answers).most_common())
