"""Impersonal answers: what an answer says of its question's own values becomes a typed blank, filled after the hit.

Answers are kept as they came: blanks are made, and filled, for each question that asks with other values.

`blank` refuses wherever the rest of the answer might depend on a value: a number or date that the question does not
say (it may be computed), a name beside a name (it may be known of that very one), a value in other words, or two that
cannot be told apart. `refill` takes only a question of the same shape whose other values are equal, and what it fills
in stays text. Whether "yes" holds for other values too, no rule can see: that is what the audits are for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from stepwell.facts.facts import MAX_CHARS, Facts, facts
from stepwell.facts.values import Value

MAX_BLANKS = 16
LOOSE = frozenset({"quote", "code"})
"""Kinds that may hold any character."""
NAMED = frozenset({"entity", "code", "quote"})
"""Kinds of which something may be known that holds for this very value."""
MARKUP = re.compile(r"[`<>]|\$\$|\]\(")
"""Code, HTML and links: any character may mean something there."""
VOWELS = frozenset("aeiouAEIOU")
ARTICLE = re.compile(r"(?<!\w)(an?)\s$", re.IGNORECASE)
ONE = re.compile(r"1(?!\S)")


class Slotted(Struct, frozen=True, gc=False):
    """An answer's text with blanks, and the question that it answers without its values."""

    shape: tuple[str, ...]
    """Of the question: see `Facts.shape`."""
    norms: tuple[str, ...]
    """Its values, in order."""
    raws: tuple[str, ...]
    """The same as they were written."""
    texts: tuple[str, ...]
    """Of the answer, between the blanks: one more than there are blanks."""
    blanks: tuple[int, ...]
    """Which of the values stands in each blank."""
    is_json: bool
    """Whether the answer is a JSON document: a value is then written as inside of a JSON string."""


def blank(question: str, answer: str) -> Slotted | None:
    """The answer with typed blanks for the question's values; None where that cannot be done for certain."""
    asked = facts(question)
    if not asked.values or not asked.whole or not 0 < len(answer) <= MAX_CHARS:
        return None
    raws = tuple(question[value.start : value.end] for value in asked.values)
    if not _apart(asked.values, raws):
        return None
    places = _places(answer, raws)
    if not 0 < len(places) <= MAX_BLANKS or not _all_told(answer, asked, raws, places):
        return None
    is_json = _is_json(answer)
    kinds = {asked.values[which].kind for _, _, which in places}
    if (MARKUP.search(answer) and kinds & LOOSE) or (is_json and (kinds & {"quote"} or "\\" in answer)):
        return None
    ends = [0, *(end for _, end, _ in places)]
    starts = [*(start for start, _, _ in places), len(answer)]
    texts = tuple(answer[end:start] for end, start in zip(ends, starts, strict=True))
    blanks = tuple(which for _, _, which in places)
    return Slotted(asked.shape, tuple(value.norm for value in asked.values), raws, texts, blanks, is_json)


def refill(slotted: Slotted, question: str) -> str | None:
    """The answer with the values of another question; None where that is not the same question with other values."""
    asked = facts(question)
    if not asked.whole or asked.shape != slotted.shape or len(asked.values) != len(slotted.norms):
        return None
    raws = tuple(question[value.start : value.end] for value in asked.values)
    if not _apart(asked.values, raws) or not _fits(slotted, asked, raws):
        return None
    values = [_in_json(raws[which]) if slotted.is_json else raws[which] for which in slotted.blanks]
    filled = _join(slotted.texts, values)
    return None if slotted.is_json and not _same_form(filled, slotted) else filled


def _join(texts: Sequence[str], values: Sequence[str]) -> str:
    return texts[0] + "".join(value + text for value, text in zip(values, texts[1:], strict=True))


# --- where the blanks are

Place = tuple[int, int, int]
"""Start, end, and which value."""


def _apart(values: Sequence[Value], raws: Sequence[str]) -> bool:
    """Whether every value can be told from every other, in any answer."""
    low = [raw.casefold() for raw in raws]
    if any(not raw.strip() for raw in low) or len({(value.kind, value.norm) for value in values}) < len(values):
        return False
    return not any(one in other for at, one in enumerate(low) for to, other in enumerate(low) if at != to)


def _places(answer: str, raws: Sequence[str]) -> list[Place]:
    """Where the answer says a value exactly as the question does."""
    pattern = "|".join(rf"(?<!\w){re.escape(raw)}(?!\w)" for raw in raws)
    which = {raw: at for at, raw in enumerate(raws)}
    return [(match.start(), match.end(), which[match[0]]) for match in re.finditer(pattern, answer)]


def _all_told(answer: str, asked: Facts, raws: Sequence[str], places: Sequence[Place]) -> bool:
    """Whether the answer says nothing but blanks and what holds for any values."""
    spans = {(start, end): which for start, end, which in places}
    pieces, start = [], 0
    for begin, end, _ in places:
        pieces.append(answer[start:begin])
        start = end
    rest = " ".join((*pieces, answer[start:])).casefold()
    if any(_inner(value, raw) in rest for value, raw in zip(asked.values, raws, strict=True)):
        return False
    numbers_only = all(asked.values[which].kind not in NAMED for which in spans.values())
    found = _values(answer)
    foreign = [value for value in found if not _is_blank(value, spans, asked)]
    return all(numbers_only and value.kind == "entity" for value in foreign) and _all_typed(found, spans, asked)


def _values(answer: str) -> tuple[Value, ...]:
    read = facts(answer.replace('"', " ") if _is_json(answer) else answer)  # a JSON string is no quote
    return read.values if read.whole else ()


def _inner(value: Value, raw: str) -> str:
    """The words of a value without quotes or signs: nothing of them may be left in the answer."""
    return raw.casefold().strip("\"'“”„«»` .,") if value.kind in {"quote", "entity", "code"} else raw.casefold()


def _is_blank(value: Value, spans: Mapping[tuple[int, int], int], asked: Facts) -> bool:
    """Whether a value in the answer is one of the blanks, and of the same type as in the question."""
    which = spans.get((value.start, value.end))
    return which is not None and asked.values[which].kind == value.kind and asked.values[which].norm == value.norm


def _all_typed(found: Sequence[Value], spans: Mapping[tuple[int, int], int], asked: Facts) -> bool:
    """Whether each blank reads as a value of its type in the answer; a name may stand at the start of a sentence."""
    read = {(value.start, value.end) for value in found}
    return all(span in read or asked.values[which].kind in {"entity", "quote"} for span, which in spans.items())


# --- whether a value fits into them


def _fits(slotted: Slotted, asked: Facts, raws: Sequence[str]) -> bool:
    filled = set(slotted.blanks)
    for at, value in enumerate(asked.values):
        same = value.norm == slotted.norms[at]
        if not same and (at not in filled or bool(ONE.match(value.norm)) != bool(ONE.match(slotted.norms[at]))):
            return False  # the answer may depend on it unsaid; or singular and plural differ
    for before, which in zip(slotted.texts, slotted.blanks, strict=False):
        article = ARTICLE.search(before)
        if article and (raws[which][0] in VOWELS) != (slotted.raws[which][0] in VOWELS):
            return False
    return True


# --- answers that are JSON


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _in_json(raw: str) -> str:
    return msgspec.json.encode(raw).decode()[1:-1]


def _same_form(filled: str, slotted: Slotted) -> bool:
    """Whether a filled JSON document has the same keys and types as before: no value has broken out of its string."""
    before = _join(slotted.texts, [_in_json(slotted.raws[which]) for which in slotted.blanks])
    try:
        return _form(msgspec.json.decode(filled)) == _form(msgspec.json.decode(before))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False


def _form(value: object) -> object:
    if isinstance(value, dict):
        return {key: _form(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_form(each) for each in value]
    return type(value)
