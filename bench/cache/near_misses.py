"""Near-misses of real questions: one small edit, by rule, that changes the right answer. A seed makes the same ones."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from bench.cache import near_words as words

KINDS = ("negation", "number", "unit", "entity", "direction", "quantity", "id", "suffix", "antonym")
SHORT = 4
"""Words of a question below which an edit leaves nothing to compare."""
LONG = 40


class NearMiss(Struct, frozen=True):
    """Two questions that a cache must not take for one another."""

    kind: str
    kept: str
    asked: str
    unseen: bool
    """Made with a word of the third of the vocabulary that is held out."""


Edit = Callable[[str, random.Random], tuple[str, str, str] | None]
"""From a question to a pair and the word that made it; None where the rule does not apply."""


def near_misses(questions: Sequence[str], num_each: int, seed: int) -> list[NearMiss]:
    """`num_each` pairs of every kind; in half of them the edited question is the one that is kept."""
    chance = random.Random(seed)
    fit = [text for text in questions if SHORT <= len(text.split()) <= LONG]
    found: list[NearMiss] = []
    for kind in KINDS:
        found += _of(kind, fit, num_each, chance)
    return found


def _of(kind: str, questions: Sequence[str], num: int, chance: random.Random) -> Iterator[NearMiss]:
    """Edits of what a question says itself first, then of what is put behind it."""
    order = list(questions)
    chance.shuffle(order)
    made = 0
    for edit in EDITS[kind]:
        limit = num if edit is EDITS[kind][-1] else (num + made) // 2 + 1
        for text in order:
            if made >= min(num, limit):
                break
            pair = edit(text, chance)
            if pair is None or pair[0].lower() == pair[1].lower():
                continue
            one, other, word = pair
            if chance.random() < 0.5:
                one, other = other, one
            made += 1
            yield NearMiss(kind, one, other, words.kept_out(word))


# --- edits of words that are there


def _pairs(table: str) -> list[tuple[str, str]]:
    return [
        (one.replace("_", " "), other.replace("_", " ")) for one, other in (pair.split("=") for pair in table.split())
    ]


def exchanged(table: str) -> Edit:
    """Put the other word of a pair for one that stands in the question."""
    pairs = _pairs(table.replace("more-than", "more_than").replace("less-than", "less_than")
                   .replace("at-", "at_"))  # fmt: skip
    other: dict[str, list[str]] = {}
    for one, two in pairs:
        other.setdefault(one, []).append(two)
        other.setdefault(two, []).append(one)
    pattern = re.compile(
        r"\b(?:" + "|".join(sorted(map(re.escape, other), key=len, reverse=True)) + r")\b(?!['’-])", re.IGNORECASE
    )

    def edit(text: str, chance: random.Random) -> tuple[str, str, str] | None:
        found = list(pattern.finditer(text))
        if not found:
            return None
        match = chance.choice(found)
        new = chance.choice(other[match[0].lower()])
        return text, _put(text, match, new), min(match[0].lower(), new)

    return edit


def named(text: str, chance: random.Random) -> tuple[str, str, str] | None:
    """Put another country, person, currency for the one in the question."""
    for group in words.NAMES.values():
        names = group.split()
        match = re.search(r"\b(?:" + "|".join(names) + r")\b", text, re.IGNORECASE)
        if match:
            new = chance.choice([name for name in names if name.lower() != match[0].lower()])
            return text, _put(text, match, new), new
    return None


def counted(text: str, chance: random.Random) -> tuple[str, str, str] | None:
    """Another number for the one in the question."""
    match = re.search(r"(?<![\w.])\d+(?![\w.]*\w)", text)
    if match is None:
        return None
    new = str(max(2, int(match[0]) + chance.choice((-3, -1, 1, 2, 5, 10, 100))))
    return text, text[: match.start()] + new + text[match.end() :], new


def turned(text: str, _chance: random.Random) -> tuple[str, str, str] | None:
    """From A to B becomes from B to A."""
    match = re.search(r"\bfrom ((?:my |the |a )?[\w']+) (to|into) ((?:my |the |a )?[\w']+)", text, re.IGNORECASE)
    if match is None or match[1].lower() == match[3].lower():
        return None
    new = f"from {match[3]} {match[2]} {match[1]}"
    return text, text[: match.start()] + new + text[match.end() :], "from"


# --- edits of what is put behind the question


def behind(kind: str) -> Edit:
    """Put a phrase of a kind behind the question, with one value on one side and another on the other."""

    def edit(text: str, chance: random.Random) -> tuple[str, str, str] | None:
        phrase = chance.choice(words.CONTEXTS[kind])
        one, other = _values(kind, chance)
        return (
            _with(text, phrase.format(**one)),
            _with(text, phrase.format(**other)),
            str(other.get("x", other.get("u", ""))),
        )

    return edit


def any_name(text: str, chance: random.Random) -> tuple[str, str, str] | None:
    """A name of any kind behind the question."""
    return behind(chance.choice(sorted(words.NAMES)))(text, chance)


def longer(text: str, chance: random.Random) -> tuple[str, str, str] | None:
    """A suffix that asks for something else (CacheAttack, 2601.23088)."""
    suffix = chance.choice(words.SUFFIXES.strip().splitlines())
    return text, _with(text, suffix), suffix


def _values(kind: str, chance: random.Random) -> tuple[dict[str, object], dict[str, object]]:
    number = chance.randint(2, 60)
    if kind == "number":
        other = number + chance.choice((1, 2, 3, 10, 40))
        spelt = number < 20 and other < 20 and chance.random() < 0.4
        return ({"n": words.SPELT[number]}, {"n": words.SPELT[other]}) if spelt else ({"n": number}, {"n": other})
    if kind == "unit":
        here, there = chance.choice(_pairs(words.UNITS))
        return {"n": number, "u": here}, {"n": number, "u": there}
    if kind == "id":
        return _ids(chance)
    if kind == "direction":
        here, there = chance.sample([f"my {place} account" for place in words.PLACES_OF_MONEY.split()], 2)
        return {"x": here, "y": there}, {"x": there, "y": here}
    here, there = chance.sample(words.NAMES[kind].split(), 2)
    return {"x": here}, {"x": there}


def _ids(chance: random.Random) -> tuple[dict[str, object], dict[str, object]]:
    """Two names that differ in one digit."""
    form = chance.choice(("A{}", "{}", "INV-{}", "{}-B", "tk_{}", "v2.{}", "0x{}", "LH{}"))
    number = chance.randint(10_000, 99_999)
    return {"x": form.format(number)}, {"x": form.format(number + chance.choice((1, 10, 100, 1000)))}


def _with(text: str, phrase: str) -> str:
    end = re.search(r"\s*[.?!]*\s*$", text)
    at = end.start() if end else len(text)
    return f"{text[:at]} {phrase.lower() if text == text.lower() else phrase}{text[at:]}"


def _put(text: str, match: re.Match[str], new: str) -> str:
    if match[0][0].isupper() and match.start() == 0:
        new = new[0].upper() + new[1:]
    if text == text.lower():
        new = new.lower()
    return text[: match.start()] + new + text[match.end() :]


EDITS: dict[str, tuple[Edit, ...]] = {
    "negation": (exchanged(words.NEGATED),),
    "number": (counted, behind("number")),
    "unit": (exchanged(words.UNITS), behind("unit")),
    "entity": (named, any_name),
    "direction": (turned, behind("direction")),
    "quantity": (exchanged(words.QUANTITIES),),
    "id": (behind("id"),),
    "suffix": (longer,),
    "antonym": (exchanged(words.OPPOSITES),),
}
