"""What the teacher is asked: one question a structure and locale, and one more for what the check refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from stepwell.templates import cldr, structure
from stepwell.templates.check import Verdict
from stepwell.templates.schema import Schema, Slot

MAX_OUTPUT_TOKENS = 4096
MAX_SHOWN = 8
"""Values shown of a slot that has many."""
PROFILE = """You write short texts with blanks, in Unicode MessageFormat 2 (MF2). Rules:
- A blank is {$slot}; numbers may be written {$slot :integer} or {$slot :number}. Only the slots named may be used.
- Where a number decides the grammar, select by it:
.input {$n :integer}
.match $n
one {{You have {$n} point.}}
* {{You have {$n} points.}}
- Keys are CLDR plural categories (of ranks: :integer select=ordinal), numbers, or a slot's
  values (:string); * is a must.
- Say each of the facts asked for, and nothing else: no digits, dates, names or claims of your own in the fixed text.
- The text must be right for every value that a blank may take: beware of a/an, gender and number.
- No markup, no line breaks within a pattern. Variants must differ in their words, not only in punctuation."""
ANSWER = {
    "type": "json_schema",
    "json_schema": {
        "name": "templates",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"templates": {"type": "array", "items": {"type": "string"}}},
            "required": ["templates"],
            "additionalProperties": False,
        },
    },
}


class Brief(Struct, frozen=True):
    """What a campaign wants of its writers."""

    tone: str = "friendly and plain"
    examples: tuple[str, ...] = ()
    """Sentences in the tone that is wanted, of the campaign's own people."""
    num_variants: int = 12


class Task(Struct, frozen=True):
    """One structure in one locale."""

    locale: str
    name: str


def first(schema: Schema, task: Task, brief: Brief, model: str) -> bytes:
    """The body of the question."""
    wanted = {
        "write": f"{brief.num_variants} variants",
        "language": task.locale,
        "tone": brief.tone,
        "longest": f"{schema.longest} characters with the longest values",
        "say": [_fact(schema, slot, value) for slot, value in (structure.parse(task.name, schema) or {}).items()],
        "plural categories": [name for name, _ in cldr.rules(task.locale, ordinal=False)] + ["other"],
        "never use": list(schema.banned),
        "examples of the tone": list(brief.examples[:MAX_SHOWN]),
    }
    return body(model, [_said("system", PROFILE), _said("user", json.dumps(wanted, ensure_ascii=False))])


def repair(schema: Schema, task: Task, brief: Brief, model: str, refused: Sequence[Verdict]) -> bytes:
    """The body of the one question that follows: what was refused, and why."""
    asked = json.loads(first(schema, task, brief, model))["messages"]
    wrong = [{"template": each.source[:2000], "refused because": each.reason} for each in refused]
    mend = json.dumps({"mend each of these, or write another in its place": wrong}, ensure_ascii=False)
    return body(model, [*asked, _said("user", mend)])


def body(model: str, messages: Sequence[dict[str, str]]) -> bytes:
    """A chat request with a structured answer."""
    limits = {"max_tokens": MAX_OUTPUT_TOKENS, "temperature": 0.9, "seed": 1}
    asked = {"model": model, "messages": list(messages), "response_format": ANSWER, **limits}
    return json.dumps(asked, ensure_ascii=False).encode()


def answered_text(reply: bytes) -> str:
    """The text of a reply; junk says nothing."""
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return content if isinstance(content, str) else ""


def answered(reply: bytes) -> list[str]:
    """The sources in a reply; junk holds none."""
    try:
        told = json.loads(answered_text(reply))["templates"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [each for each in told if isinstance(each, str)] if isinstance(told, list) else []


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _fact(schema: Schema, name: str, value: str | None) -> dict[str, Any]:
    slot = schema.slot(name)
    if value is not None or slot is None:
        return {"fact": f"{name} is {value}: say it in words"}
    return {"slot": f"${name}", "kind": slot.kind, "may be": _values(slot)} | (
        {"forms": [f"${name}.{form}" for form in slot.forms]} if slot.forms else {}
    )


def _values(slot: Slot) -> Any:  # noqa: ANN401 - JSON
    """What a slot may hold. Readers' own words are never shown to a model."""
    if slot.untrusted:
        return "any words of the reader's own"
    if slot.kind in {"number", "money", "date"}:
        return f"{slot.low} to {slot.high} {slot.currency}".strip()
    return list(slot.values) if slot.kind == "choice" else list(slot.values[:MAX_SHOWN])
