"""What shows only in a filled text: each probe gives the reason to refuse it, or nothing."""

from __future__ import annotations

import re

_ARTICLE = re.compile(r"\b(an?) ([A-Za-z][\w'-]*|[0-9][0-9,.]*)", re.IGNORECASE)
_SOUNDS_VOWEL = ("hour", "honest", "honor", "honour", "heir")
_SOUNDS_CONSONANT = ("uni", "use", "user", "usu", "uten", "euro", "europ", "eu", "one", "once", "ubi", "ut")
_VOWEL_NUMBERS = re.compile(r"(8|11|18)(?=$|,|\.)|8[0-9]{0,2}(,|$|\.)")
_ONE_OF_MANY = re.compile(r"(?<![\d.,:/-])1 ([a-z]{2,}s)\b")
_SINGULAR_IN_S = frozenset(
    {"is", "was", "has", "as", "us", "this", "its", "plus", "bus", "gas", "always", "across", "series"}
)


def length(text: str, longest: int) -> str:
    """Whether a text fits its channel."""
    return f"{len(text)} characters, at most {longest}: {text[:60]}…" if len(text) > longest else ""


def blanks(text: str) -> str:
    """Whether a value left a hole or doubled a space."""
    return f"two spaces or one at an end: {text[:80]!r}" if "  " in text or text != text.strip() else ""


def casing(text: str) -> str:
    """Whether each sentence begins with a capital, where the script has them."""
    first = text.lstrip("\"'\u201c\u2018«¿¡(")[:1]
    if first.isalpha() and first.islower():
        return f"begins with a small letter: {text[:60]!r}"
    if found := re.search(r"[^.\s]{3,}[.!?] +([a-zà-öø-ÿ])", text):
        return f"a sentence begins with a small letter: {text[max(0, found.start()) : found.end() + 20]!r}"
    return ""


def agreement(text: str, locale: str) -> str:
    """Whether English articles and numbers agree with what follows them."""
    if locale.partition("-")[0] != "en":
        return ""
    for article, word in _ARTICLE.findall(text):
        wants = "an" if vowel(word) else "a"
        if article.lower() != wants and not (article == "A" and len(word) == 1):
            return f"{article} {word}: {wants} {word}"
    for word in _ONE_OF_MANY.findall(text):
        if word not in _SINGULAR_IN_S and not word.endswith("ss"):
            return f"1 {word}: select the plural by the number"
    return ""


def vowel(word: str) -> bool:
    """Whether a word begins with a vowel's sound."""
    small = word.lower()
    if small[0].isdigit():
        return bool(_VOWEL_NUMBERS.match(small))
    if small.startswith(_SOUNDS_VOWEL):
        return True
    return small[0] in "aeiou" and not small.startswith(_SOUNDS_CONSONANT)
