"""What can be said of a message by reading it: each gate gives the reason to refuse it, or nothing."""

from __future__ import annotations

import re

from stepwell.templates import cldr, dates, structure
from stepwell.templates.compile import is_number
from stepwell.templates.mf2 import Blank, Message, Selector
from stepwell.templates.numerals import category, rounded
from stepwell.templates.samples import PROBED
from stepwell.templates.schema import Schema, Slot

_NOUNS_IN_CAPITALS = frozenset({"de", "lb"})
_INNER_NAME = re.compile(r"(?<=[\w,;] )([^\W\d_][\w'\u2019-]*)")
_UNCOUNTED = frozenset(
    "a an and are as at but by for from has have in is now of on or out per than the to was were with".split(" ")  # noqa: SIM905
)
"""English words that may follow a number without being counted by it."""
_SPACED = frozenset({"fr"})
"""Languages that put a space before ! ? : ;"""


def slots(message: Message, schema: Schema, name: str) -> str:
    """Whether the message speaks of the slots that it must, and of no others."""
    listed = structure.parse(name, schema)
    must = {slot for slot, value in listed.items() if value is None} if listed else _required(schema)
    spoken = {slot.partition(".")[0] for slot in message.slots}
    for slot in sorted(message.slots):
        found, form = schema.slot(slot), slot.partition(".")[2]
        if found is None or (form and form not in found.forms):
            return f"${slot} is not in the schema"
    if lacking := sorted(must - spoken):
        return f"says nothing of {', '.join(lacking)}"
    if listed and (others := sorted(spoken - set(listed))):
        return f"speaks of {', '.join(others)}, which {name} has not"
    return _blanks(message, schema)


def _required(schema: Schema) -> set[str]:
    return {slot.name for slot in schema.slots if not slot.optional}


def _blanks(message: Message, schema: Schema) -> str:
    for variant in message.variants:
        written = {part.slot for part in variant.pattern if isinstance(part, Blank)}
        for slot in sorted(written):
            found = schema.slot(slot)
            if found and not found.blank:
                return f"${slot} may only be selected by, not written"
        for key, selector in zip(variant.keys, message.selectors, strict=True):
            found = schema.slot(selector.slot)
            if key is not None and found and found.kind == "choice" and key not in found.values:
                return f"key {key} is no value of ${selector.slot}"
    return ""


def plurals(message: Message, schema: Schema, locale: str) -> str:
    """Whether every plural category that the locale has for the slot's numbers is written."""
    for place, selector in enumerate(message.selectors):
        slot = schema.slot(selector.slot)
        if selector.mode not in {"plural", "ordinal"} or slot is None:
            continue
        keys = {variant.keys[place] for variant in message.variants}
        exact = {float(key) for key in keys if key is not None and is_number(key)}
        lacking = reached(slot, locale, exact, ordinal=selector.mode == "ordinal") - keys - {"other"}
        if lacking and len(keys) > 1:
            return f"${selector.slot}: no variant for the plural category {', '.join(sorted(lacking))} of {locale}"
    return ""


def counted(message: Message, schema: Schema, locale: str) -> str:
    """Whether a word that follows a number can agree with it: only where the number has been selected by."""
    selected = {selector.slot for selector in message.selectors if selector.mode == "plural"}
    for variant in message.variants:
        for blank, after in zip(variant.pattern, variant.pattern[1:], strict=False):
            if not isinstance(blank, Blank) or blank.slot in selected or not isinstance(after, str):
                continue
            slot, word = schema.slot(blank.slot), re.match(r"\s([^\W\d_]+)", after)
            if slot is None or slot.kind != "number" or blank.function == "percent" or word is None:
                continue
            if word[1].lower() not in _UNCOUNTED and len(reached(slot, locale, set(), ordinal=False)) > 1:
                return f"${blank.slot} is followed by {word[1]!r}, which must agree: select the plural by it"
    return ""


def unsaid(message: Message, schema: Schema, locale: str) -> str:
    """Whether a variant that is right for several values of a slot says which one it is."""
    for place, selector in enumerate(message.selectors):
        slot = schema.slot(selector.slot)
        keys = {variant.keys[place] for variant in message.variants} - {None}
        for variant in message.variants:
            said = any(isinstance(part, Blank) and part.slot == selector.slot for part in variant.pattern)
            if slot and not said and not slot.protected and shared(slot, selector, variant.keys[place], keys, locale):
                return f"the variant for {variant.keys[place] or 'other'} values of ${selector.slot} does not say which"
    return ""


def shared(slot: Slot, selector: Selector, key: str | None, keys: set[str | None], locale: str) -> bool:
    """Whether a key stands for more than one value of its slot."""
    if selector.mode == "string":
        return key is None and (slot.kind != "choice" or len(set(slot.values) - keys) > 1)
    if key is not None and is_number(key):
        return False
    exact = {float(each) for each in keys if each is not None and is_number(each)}
    low, high = max(0, int(float(slot.low))), int(float(slot.high))
    rules = cldr.rules(locale, ordinal=selector.mode == "ordinal")
    named = [
        category(*rounded(each, 0, 0), rules) for each in range(low, min(high, low + PROBED) + 1) if each not in exact
    ]
    return sum(each == key or (key is None and each not in keys) for each in named) > 1


def reached(slot: Slot, locale: str, exact: set[float], *, ordinal: bool) -> set[str]:
    """The plural categories of the whole numbers in a slot's range, but for those with a key of their own."""
    low, high = max(0, int(float(slot.low))), int(float(slot.high))
    numbers = (number for number in range(low, min(high, low + PROBED) + 1) if number not in exact)
    rules = cldr.rules(locale, ordinal=ordinal)
    return {category(*rounded(number, 0, 0), rules) for number in numbers}


def facts(message: Message, schema: Schema, locale: str, name: str) -> str:
    """Whether fixed text says what only a slot may say: a number, a date, a name."""
    named = {value for slot in schema.slots for value in slot.values if value != value.lower() or slot.kind == "entity"}
    months = {name for name in dates.names(locale, "MMMM") if len(name) > 3 and name[0].isupper()}  # noqa: PLR2004 - May
    fixed = {value for value in (structure.parse(name, schema) or {}).values() if value}
    for variant in message.variants:
        chosen = fixed | {key for key in variant.keys if key}
        # A blank stands as a word, so that what follows it is not the beginning.
        text = "".join(part if isinstance(part, str) else "x" for part in variant.pattern)
        for known in (*schema.allowed, *chosen):
            text = text.replace(known, "x")
        if (found := re.search(r"\d+", text)) and not any(found[0] in value for value in chosen):
            return f"the number {found[0]} is fixed text: an invented fact"
        for each in sorted((named - chosen) | months):
            if re.search(rf"(?<!\w){re.escape(each)}(?!\w)", text):
                return f"{each!r} is fixed text: an invented fact"
        if locale.partition("-")[0] not in _NOUNS_IN_CAPITALS and (inner := _inner_name(text, chosen)):
            return f"{inner!r} is a name in fixed text: an invented fact, or add it to `allowed`"
    return ""


def _inner_name(text: str, chosen: set[str]) -> str:
    """A word with a capital within a sentence."""
    words = {word for value in chosen for word in value.split()} | {"I"}
    found = (re.split(r"['\u2019]", each[1])[0] for each in _INNER_NAME.finditer(text))
    return next((word for word in found if word[0].isupper() and word not in words), "")


def words(message: Message, schema: Schema) -> str:
    """Whether a banned word is in fixed text."""
    text = "\n".join(part for variant in message.variants for part in variant.pattern if isinstance(part, str))
    for word in schema.banned:
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE):
            return f"the word {word!r} is banned"
    return ""


def spacing(message: Message, locale: str) -> str:
    """Whether spaces stand where they belong."""
    stops = ",." if locale.partition("-")[0] in _SPACED else ",.!?;:"
    for variant in message.variants:
        text = "".join(part if isinstance(part, str) else "x" for part in variant.pattern)
        if "  " in text or text != text.strip():
            return "two spaces, or one at an end"
        if found := re.search(rf"\s[{stops}](?!\w|\.\.)", text):
            return f"a space before {found[0][-1]!r}"
    return ""
