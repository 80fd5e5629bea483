"""Templates without any model: sentences that people wrote, with their facts taken out (delexicalised)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from stepwell.templates import cldr, dates, structure
from stepwell.templates.articles import articled
from stepwell.templates.merge import Sample, merged
from stepwell.templates.ops import writer
from stepwell.templates.schema import Schema, Slot, Value, Values

_ENDING = r"(?<=\d)(?:st|nd|rd|th)"
Pair = tuple[Values, str]
"""A reader's values, and a sentence that says them."""


def harvest(schema: Schema, pairs: Iterable[Pair], locale: str = "en") -> dict[str, list[str]]:
    """MessageFormat 2 sources by structure, the most frequent first. Sentences that leave a fact out are left out."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    for values, text in pairs:
        made = delexicalised(schema, values, text, locale)
        if made:
            samples[made[0]].append(Sample(values, made[1]))
    merge = {name: merged(schema, locale, _by_frequency(each)) for name, each in sorted(samples.items())}
    if locale.partition("-")[0] != "en":
        return merge
    return {name: list(dict.fromkeys(articled(schema, source) for source in each)) for name, each in merge.items()}


def _by_frequency(samples: list[Sample]) -> list[Sample]:
    counts = Counter(each.pattern for each in samples)
    return sorted(samples, key=lambda each: -counts[each.pattern])


def delexicalised(schema: Schema, values: Values, text: str, locale: str = "en") -> tuple[str, str] | None:
    """A sentence's structure and source; None where a value that only a blank can say is not there word for word.

    A choice that is said in other words stays in the fixed text: the structure then names its value.
    """
    parts: list[str] = [" ".join(text.split())]
    found: structure.Structure = {}
    # Longer values first: "city centre bar" before "bar".
    for name, value in sorted(values.items(), key=lambda each: -len(str(each[1]))):
        slot = schema.slot(name)
        if slot is None:
            return None
        said = slot.blank and value != "" and _cut(parts, name, spellings(slot, value, locale))
        if not said and slot.kind != "choice":
            return None
        found[name] = None if said else str(value)
    return structure.name(found), "".join(escaped(part) if at % 2 == 0 else part for at, part in enumerate(parts))


def spellings(slot: Slot, value: Value, locale: str) -> tuple[str, ...]:
    """How a value may be written."""
    text = str(value)
    if slot.kind == "date":
        return tuple({dated for length in ("medium", "long") if (dated := day(text, locale, length))} | {text})
    if slot.kind in {"number", "money"} and not isinstance(value, str):
        return (f"{value:,}", text)
    return (text,)


def day(value: str, locale: str, length: str) -> str:
    """A day as a locale writes it, or nothing where it is none."""
    pieces = dates.date(locale, {"length": length})
    named = {piece[0] for piece in pieces if isinstance(piece, list) and piece[0][:3] in {"MMM", "LLL", "E", "EEE"}}
    names = {field: dates.names(locale, field) for field in named}
    return writer(["d", "", pieces], cldr.numerals(locale), names, "plain")(value) or ""


def _cut(parts: list[str], name: str, texts: tuple[str, ...]) -> bool:
    """Replace each mention within the fixed parts (those at even places) by a blank; whether there was one."""
    # A rank may be followed by its ending.
    mention = re.compile("|".join(rf"(?<![\w'-]){re.escape(text)}(?=(?:{_ENDING})?(?![\w-]))" for text in texts))
    cut: list[str] = []
    for at, part in enumerate(parts):
        pieces = mention.split(part) if at % 2 == 0 else [part]
        for place, piece in enumerate(pieces):
            cut += [f"{{${name}}}", piece] if place else [piece]
    said = len(cut) > len(parts)
    parts[:] = cut
    return said


def escaped(text: str) -> str:
    """Fixed text in MessageFormat 2."""
    return re.sub(r"[\\{}|]", r"\\\g<0>", text)
