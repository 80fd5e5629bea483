"""What a generator replied: the text, or why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from stepwell.engines import replies
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


def read(kept: Kept, revision: str = "") -> Said:
    """The text of a reply, or why it has none."""
    told = replies.read(kept.body)
    return Said(told.text, told.fault, revision or told.revision, kept.usage, kept.usd)


def no_answer(text: str, wanted: Filters) -> str:
    """Why a text is no answer: it refuses, or is surely in another language; "" where it is one."""
    if wanted.refusals and is_refusal(text):
        return f"refused: {text[:MAX_SHOWN]}"
    other = other_language(text, wanted.language) if wanted.language else ""
    return f"in {other}, not {wanted.language}" if other else ""


def reasons(faults: Iterable[str]) -> str:
    """Why there are no texts, with how often."""
    return ", ".join(f"{num} {why}" for why, num in Counter(faults).most_common())
