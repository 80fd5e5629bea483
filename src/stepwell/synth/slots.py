"""Slots in a prompt, `name[The Eagle], food[French]` or a JSON object: read, and written into its place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal

from msgspec import Struct

from stepwell.quality.verify import BRACKETED, bracketed

Slots = dict[str, Any]
Format = Literal["brackets", "json"]
FACTS = re.compile(rf"{BRACKETED.pattern}(?:\s*,\s*{BRACKETED.pattern})*")
MAX_BRACES = 8
"""Places at which a JSON object is looked for."""
read_json = json.JSONDecoder().raw_decode


class Read(Struct, frozen=True):
    """A prompt's slots, and what stands before and after them."""

    before: str
    slots: Slots
    after: str
    format: Format


def read(prompt: str) -> Read | None:
    """The slots of a prompt; None where there are none."""
    for brace in islice(re.finditer(r"\{", prompt), MAX_BRACES):
        try:
            slots, end = read_json(prompt, brace.start())
        except (ValueError, RecursionError):
            continue
        if slots:
            return Read(prompt[: brace.start()], slots, prompt[end:], "json")
    found = FACTS.search(prompt)
    if found is None:
        return None
    return Read(prompt[: found.start()], dict(bracketed(found[0])), prompt[found.end() :], "brackets")


def write(slots: Mapping[str, Any], format_: Format = "brackets") -> str:
    """Slots as text."""
    if format_ == "json":
        return json.dumps(dict(slots), ensure_ascii=False)
    return ", ".join(f"{name}[{value}]" for name, value in slots.items())


def with_slots(prompt: Read, slots: Mapping[str, Any]) -> str:
    """The same prompt with other slots."""
    return f"{prompt.before}{write(slots, prompt.format)}{prompt.after}"


def facts_key(prompt: str) -> str:
    """The same for prompts of the same facts in any order; "" for a prompt without."""
    found = read(prompt)
    if found is None:
        return ""
    folded = {name.casefold(): " ".join(str(value).casefold().split()) for name, value in found.slots.items()}
    around = " ".join((found.before + found.after).casefold().split())
    return json.dumps([around, sorted(folded.items())], ensure_ascii=False)
