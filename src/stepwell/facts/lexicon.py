"""One word looked up in every list at once: its stem and what it may mean. Remembered, for most words come again."""

# ruff: noqa: RUF001 - strange letters are what is read

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

from msgspec import Struct

from stepwell.facts import meanings, value_words, words

MAX_WORD = 64
"""Characters of a word that are compared."""
NUM_KEPT = 16_384
SUFFIXES = ("ingly", "edly", "ings", "ing", "ied", "ed", "ly")
VOWELS = frozenset("aeiouy")


class Word(Struct, frozen=True, gc=False):
    """What the lists say of one word; fields are empty where they say nothing."""

    stem: str
    meaning: str
    """The stem, the same for words that usually mean the same; empty where no answer depends on it."""
    kind: str = ""
    """number, scale, ordinal, unit, currency, month, weekday, day, hour, relative or place"""
    norm: str = ""
    negates: bool = False
    stops: bool = False
    """Carries no meaning of its own."""
    poles: tuple[str, ...] = ()
    asks: str = ""
    language: str = ""


def fold(text: str) -> str:
    """A word in lower case, in one Unicode form, with the plain apostrophe."""
    if text.isascii():
        return text[:MAX_WORD].lower()
    return unicodedata.normalize("NFKC", text[:MAX_WORD]).casefold().replace("’", "'")


@lru_cache(NUM_KEPT)
def look_up(text: str) -> tuple[Word, ...]:
    """The word as written, or the several that a contraction stands for."""
    low = fold(text)
    if low in words.CONTRACTIONS:
        return tuple(_word(part) for part in words.CONTRACTIONS[low])
    if low.endswith("n't"):
        return (_word(low[:-3]), _word("not"))
    head, apostrophe, tail = low.rpartition("'")
    if apostrophe and len(tail) <= 2:  # noqa: PLR2004 - 's, 'm, 're, 've, 'll, 'd
        return (_word(head),) if head else ()
    return (_word(low),)


def stem(low: str) -> str:
    """An English word without its inflection; it need not be a word, only the same for all of its forms."""
    low = words.IRREGULAR.get(low, low)
    if len(low) > 3 and low.endswith("s") and not low.endswith(("ss", "us", "is")):  # noqa: PLR2004
        low = low[:-3] + "y" if low.endswith("ies") else low[:-1]
    low = words.IRREGULAR.get(low, low)
    for suffix in SUFFIXES:
        rest = low.removesuffix(suffix)
        if rest != low and len(rest) >= 3 and VOWELS & set(rest):  # noqa: PLR2004
            low = rest + "y" if suffix == "ied" else rest
            if len(low) > 3 and low[-1] == low[-2] and low[-1] not in "lsz":  # noqa: PLR2004
                low = low[:-1]
            break
    if len(low) > 3 and low.endswith("e"):  # noqa: PLR2004
        low = low[:-1]
    if len(low) > 5 and low[-1] == low[-2] == "l":  # noqa: PLR2004
        low = low[:-1]
    return low


def _word(low: str) -> Word:
    root = stem(low)
    kind, norm = _kind(low)
    filler = low in words.FILLERS or low in words.OPENINGS
    return Word(
        root,
        "" if filler else SAME.get(root, root),
        kind,
        norm,
        negates=low in words.NEGATIONS,
        stops=low in words.STOP or low in words.NEGATIONS,
        poles=POLES.get(low) or POLES.get(root) or (),
        asks=words.QUESTIONS.get(low, ""),
        language=LANGUAGE.get(low, ""),
    )


def _kind(low: str) -> tuple[str, str]:
    for kind, table in KINDS:
        if low in table:
            return kind, str(table[low])
    return "", ""


KINDS: tuple[tuple[str, dict[str, int] | dict[str, float] | dict[str, str]], ...] = (
    ("number", value_words.NUMBERS),
    ("scale", value_words.SCALES),
    ("times", value_words.TIMES),
    ("ordinal", value_words.ORDINALS),
    ("month", value_words.MONTHS),
    ("weekday", value_words.WEEKDAYS),
    ("day", value_words.DAYS),
    ("hour", value_words.HOURS),
    ("relative", value_words.RELATIVE),
    ("currency", value_words.CURRENCIES),
    ("unit", value_words.UNITS),
    ("place", dict.fromkeys(value_words.PLACES, "")),
)
SAME = {stem(one): stem(name) for name, group in meanings.SAME.items() for one in group.split()}


def _poles() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for number, pair in enumerate(meanings.POLES):
        for sign, side in zip("+-", pair.split(" / "), strict=True):
            for one in side.split():
                for form in {one, stem(one)}:
                    found.setdefault(form, []).append(f"{sign}{number}")
    return {one: tuple(sorted(set(poles))) for one, poles in found.items()}


def _languages() -> dict[str, str]:
    """Function words that only one of the languages has."""
    count = Counter(one for text in words.LANGUAGES.values() for one in set(text.split()))
    return {one: name for name, text in words.LANGUAGES.items() for one in text.split() if count[one] == 1}


POLES = _poles()
LANGUAGE = _languages()
