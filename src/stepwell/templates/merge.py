"""Sentences that differ only in what a value asks for (a/an, point/points, 1st/2nd) become one message that selects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from stepwell.templates import cldr
from stepwell.templates.numerals import category, number, rounded
from stepwell.templates.schema import Schema, Slot, Value, Values

MAX_APART = 2
"""Words in which two sentences of one message may differ."""
MAX_KEYS = 24


class Sample(Struct, frozen=True):
    """A pattern, and values for which somebody wrote it."""

    values: Values
    pattern: str


def merged(schema: Schema, locale: str, samples: Sequence[Sample]) -> list[str]:
    """Sources: one for each group of sentences that a slot's value tells apart, the others as they are."""
    sources = []
    for group in groups(samples):
        patterns = list(dict.fromkeys(each.pattern for each in group))
        selecting = selected(schema, locale, group) if len(patterns) > 1 else None
        sources += [selecting] if selecting else patterns
    return list(dict.fromkeys(sources))


def groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that are alike but for a few words, in the order of their first."""
    found: list[list[Sample]] = []
    by_length: defaultdict[int, list[list[Sample]]] = defaultdict(list)
    for sample in samples:
        words = sample.pattern.split()
        near = by_length[len(words)]
        home = next((each for each in near if apart(each[0].pattern.split(), words) <= MAX_APART), None)
        if home is None:
            home = []
            near.append(home)
            found.append(home)
        home.append(sample)
    return found


def apart(first: Sequence[str], second: Sequence[str]) -> int:
    """Places in which two sentences of one length differ; far, where a blank is one of them."""
    differing = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    moved = any(blanks_of(a) != blanks_of(b) for a, b in differing)
    return MAX_APART + 1 if moved else len(differing)


def blanks_of(word: str) -> str:
    """The blank in a word, or nothing."""
    start = word.find("{$")
    return word[start : word.find("}") + 1] if start >= 0 else ""


def selected(schema: Schema, locale: str, group: Sequence[Sample]) -> str | None:
    """The group as one message, if the class of one slot's value decides which of its sentences is right."""
    for name in sorted(set.intersection(*(set(each.values) for each in group))):
        slot = schema.slot(name)
        for head, classed in choices(slot, name, locale) if slot else ():
            chosen = decided(group, name, classed)
            if chosen and (lines := written(chosen)):
                return f"{head}\n.match ${name}\n" + lines
    return None


Classed = Callable[[Value], str]


def choices(slot: Slot, name: str, locale: str) -> list[tuple[str, Classed]]:
    """Ways in which a slot can decide: the declaration, and a value's class."""
    if slot.kind == "choice":
        return [(f".input {{${name} :string}}", str)]
    if slot.kind not in {"number", "money"}:
        return []
    function = "number" if slot.decimals else "integer"
    return [
        (f".input {{${name} :{function}{option}}}", plural(locale, ordinal=ordinal))
        for option, ordinal in (("", False), (" select=ordinal", True))
    ]


def plural(locale: str, *, ordinal: bool) -> Classed:
    """The plural category of a value."""
    rules = cldr.rules(locale, ordinal=ordinal)
    return lambda value: category(*rounded(number(value) or 0, 0, 3), rules)


def decided(group: Sequence[Sample], name: str, classed: Classed) -> Mapping[str, str] | None:
    """The pattern of each class, or None where a class has two, or all have the same."""
    chosen: dict[str, str] = {}
    for each in group:
        if chosen.setdefault(classed(each.values[name]), each.pattern) != each.pattern:
            return None
    return chosen if len(set(chosen.values())) > 1 else None


def written(chosen: Mapping[str, str]) -> str | None:
    """The variants; the most frequent pattern, or that of `other`, stands for everything else."""
    counts = {pattern: list(chosen.values()).count(pattern) for pattern in chosen.values()}
    rest = chosen.get("other") or max(counts, key=lambda pattern: counts[pattern])
    keys = {key: pattern for key, pattern in chosen.items() if pattern != rest}
    if len(keys) > MAX_KEYS or any("|" in key or "\\" in key for key in keys):
        return None
    lines = [f"{key if key.isalpha() else f'|{key}|'} {{{{{pattern}}}}}" for key, pattern in keys.items()]
    return "\n".join([*lines, f"* {{{{{rest}}}}}"])
