"""Typed values in a text: how much, when, which, who. Equal values are equal however they are written."""

# ruff: noqa: RUF001, SIM905 - strange letters are what is read; lists are read as text

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from stepwell.facts.lexicon import Word, fold
from stepwell.facts.tokens import Token
from stepwell.facts.value_words import CURRENCIES, SPANS

CODE_DIGITS = 7
"""So many digits in a row name something and count nothing."""
MAX_DIGITS = 300
"""More would not be a number to anybody."""

Kind = Literal["number", "ordinal", "money", "measure", "date", "time", "code", "quote", "entity"]


class Value(Struct, frozen=True, gc=False):
    """A value and where it stands: text[start:end] is how it was written."""

    kind: Kind
    norm: str
    start: int
    end: int


FIGURE = re.compile(r"(\D*?)\s?([-−]?\d(?:[\d.,'’]*\d)?)\s?(k\b|K\b|M\b|bn\b)?(st|nd|rd|th)?\s?(\D*)$")
TIME = re.compile(r"(\d{1,2})(?:[:h](\d{2}))?(?::\d{2})?\s?(?:([ap])\.?m)?")
THOUSANDS = re.compile(r"\d{1,3}(?:([,.'’])\d{3})(?:\1\d{3})*")
SCALE_SIGNS = {"k": 1e3, "K": 1e3, "M": 1e6, "bn": 1e9}
UNSURE = frozenset("may march mar sat sun mon".split())
"""A month or weekday only behind a word that announces a date."""
ANNOUNCE = frozenset("in on of by until till since from before after for last next this every during".split())
UNSURE_MONEY = frozenset("real reais won rand nok penny cent cents pence quid".split())
"""Money only behind a figure."""
BREAKS = frozenset('.?!:;\n"“”«»(')


def values(text: str, tokens: Sequence[Token]) -> list[Value]:
    """Every typed value of a text, in order, none inside another."""
    found: list[Value] = []
    names = _names(text, tokens)
    place = 0
    while place < len(tokens):
        kind, norm, used = _read(tokens, place)
        if not kind and place in names:
            used = next(used for used in range(1, len(tokens) + 1) if not _goes_on(text, tokens, place + used, names))
            last = tokens[place + used - 1]
            kind, norm = "entity", fold(text[tokens[place].start : last.end])
        if kind:
            found.append(Value(kind, norm, tokens[place].start, tokens[place + used - 1].end))
        place += used
    return found


Found = tuple[Kind | Literal[""], str, int]
"""Kind, norm, and how many tokens it takes; the kind is empty where there is no value."""
NOTHING: Found = ("", "", 1)


def _read(tokens: Sequence[Token], place: int) -> Found:
    token = tokens[place]
    match token.kind:
        case "figure":
            return _figure(tokens, place)
        case "quote":
            return "quote", fold(token.text[1:-1].strip()), 1
        case "code":
            return "code", token.text.rstrip(".,;:!?)").lower(), 1
        case "date":
            return "date", "-".join(str(int(part)) for part in re.split(r"\D", token.text)), 1
        case "time":
            return "time", _clock(token.text), 1
    word = token.words[0] if len(token.words) == 1 else None
    return _worded(tokens, place, word) if word is not None and word.kind else NOTHING


def _worded(tokens: Sequence[Token], place: int, word: Word) -> Found:  # noqa: PLR0911 - one line a kind
    low = fold(tokens[place].text)
    match word.kind:
        case "number" | "times":
            return _spelt(tokens, place, word)
        case "ordinal":
            return _dated(tokens, place + 1, word.norm, 1) or ("ordinal", word.norm, 1)
        case "relative":
            return _relative(tokens, place, word)
        case "month" | "weekday" if low in UNSURE and not (_announced(tokens, place) or _numbered(tokens, place + 1)):
            return NOTHING
        case "month":
            return _month(tokens, place, word)
        case "weekday" | "day":
            return "date", word.norm, 1
        case "hour":
            return "time", word.norm, 1
        case "place":
            return "entity", low, 1
        case "currency" if low not in UNSURE_MONEY:
            return "entity", word.norm, 1
    return NOTHING


# --- figures


def _figure(tokens: Sequence[Token], place: int) -> Found:
    match = FIGURE.match(tokens[place].text)
    if match is None:
        return NOTHING
    sign, digits, scale, nth, after = match.groups()
    number = _number(digits)
    if number is None:
        return "code", digits, 1
    if nth:
        return _dated(tokens, place + 1, _norm(number), 1) or ("ordinal", _norm(number), 1)
    number *= SCALE_SIGNS.get((scale or "").strip(), 1)
    mark = sign.strip() or after.strip()
    if mark:
        return (
            ("money", f"{_norm(number)} {CURRENCIES[mark]}", 1)
            if mark in CURRENCIES
            else ("measure", f"{_norm(number)} {mark.lower()}", 1)
        )
    used = 1
    scaled = _known(tokens, place + 1, "scale")
    if scaled is not None:
        number, used = number * float(scaled.norm), 2
    return _dated(tokens, place + used, _norm(number), used) or _measured(tokens, place, number, used)


def _spelt(tokens: Sequence[Token], place: int, word: Word) -> Found:
    """Number words, as many as make one number; a lone "one" counts nothing."""
    if word.kind == "times":
        return "number", f"x{word.norm}", 1
    total, used = float(word.norm), 1
    while (following := _known(tokens, place + used + _and(tokens, place + used), "number", "scale")) is not None:
        step = float(following.norm)
        if following.kind == "scale":
            total *= step
        elif _follows(total, step):
            total += step
        else:
            break
        used += 1 + _and(tokens, place + used)
    found = _measured(tokens, place, total, used)
    lone = used == 1 and total == 1 and found[0] == "number"
    return NOTHING if lone else _dated(tokens, place + used, _norm(total), used) or found


def _and(tokens: Sequence[Token], place: int) -> int:
    """1 at the "and" of two hundred and fifty."""
    hundreds = _known(tokens, place - 1, "scale") is not None
    return int(hundreds and place < len(tokens) and tokens[place].text.lower() == "and")


def _follows(total: float, step: float) -> bool:
    """Whether a number word goes on with the number before it: two hundred | fifty, twenty | five."""
    hundred, ten = 100, 10
    return (total >= hundred and step < hundred) or (total % ten == 0 and total % hundred > ten and step < ten)


def _measured(tokens: Sequence[Token], place: int, number: float, used: int) -> Found:
    """A number with the unit or currency behind it, if there is one."""
    unit = _known(tokens, place + used, "unit", "currency")
    if (
        unit is None
        and _known(tokens, place + used, "ordinal", norm="2")
        and tokens[place + used].text.lower() == "second"
    ):
        return "measure", f"{_norm(number)} s", used + 1
    if unit is None:
        return "number", _norm(number), used
    return "money" if unit.kind == "currency" else "measure", f"{_norm(number)} {unit.norm}", used + 1


def _number(digits: str) -> float | None:
    """The number that digits with separators say; None where they name something (an account, a version)."""
    digits = digits.replace("−", "-")
    thousands = THOUSANDS.fullmatch(digits.lstrip("-"))
    if thousands and (thousands[1] != "." or digits.count(".") > 1):
        digits = digits.replace(thousands[1], "")
    elif "," in digits and "." in digits:
        decimal = max(",", ".", key=digits.rfind)
        digits = digits.replace("," if decimal == "." else ".", "").replace(decimal, ".")
    digits = digits.replace(",", ".")
    plain = len(digits) >= CODE_DIGITS and digits.isdigit() and not thousands
    if plain or digits.count(".") > 1 or "'" in digits or "’" in digits or len(digits) > MAX_DIGITS:
        return None
    return float(digits)


def _norm(number: float) -> str:
    return f"{number:.12g}"


# --- dates and times


def _dated(tokens: Sequence[Token], place: int, day: str, used: int) -> Found | None:
    """A day with the month behind it: 5 May, third of March."""
    if place < len(tokens) and tokens[place].text == "of":
        place, used = place + 1, used + 1
    month = _known(tokens, place, "month")
    return ("date", f"{month.norm}/{day}", used + 1) if month else None


def _month(tokens: Sequence[Token], place: int, month: Word) -> Found:
    """A month, with the day behind it: May 5, March 3rd."""
    following = tokens[place + 1] if place + 1 < len(tokens) else None
    day = (
        re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?", following.text) if following and following.kind == "figure" else None
    )
    if day:
        return "date", f"{month.norm}/{int(day[1])}", 2
    nth = _known(tokens, place + 1, "ordinal")
    return ("date", f"{month.norm}/{nth.norm}", 2) if nth else ("date", f"month {month.norm}", 1)


def _relative(tokens: Sequence[Token], place: int, word: Word) -> Found:
    """Last week, next Friday, this month."""
    following = tokens[place + 1] if place + 1 < len(tokens) else None
    if following is None or len(following.words) != 1:
        return NOTHING
    known = following.words[0]
    if known.kind in {"weekday", "month", "hour"} or known.stem in SPANS:
        return "date", f"{word.norm} {known.norm or known.stem}", 2
    return NOTHING


def _announced(tokens: Sequence[Token], place: int) -> bool:
    return place > 0 and tokens[place - 1].text.lower() in ANNOUNCE


def _numbered(tokens: Sequence[Token], place: int) -> bool:
    return place < len(tokens) and (tokens[place].kind == "figure" or _known(tokens, place, "ordinal") is not None)


def _clock(text: str) -> str:
    match = TIME.match(text.lower())
    if match is None:
        return fold(text)
    hour, minute, half = int(match[1]), int(match[2] or 0), match[3]
    return f"{hour % 12 + 12 * (half == 'p') if half else hour}:{minute:02}"


def _known(tokens: Sequence[Token], place: int, *kinds: str, norm: str = "") -> Word | None:
    """What the lexicon says of the word at a place, if it is of one of these kinds."""
    if not 0 <= place < len(tokens) or len(tokens[place].words) != 1:
        return None
    word = tokens[place].words[0]
    return word if word.kind in kinds and norm in {"", word.norm} else None


# --- names


def _names(text: str, tokens: Sequence[Token]) -> set[int]:
    """Places of words written with a capital in the midst of a sentence, in a text that does not capitalise all."""
    capital = [place for place, token in enumerate(tokens) if token.kind == "word" and token.text[0].isupper()]
    if len(capital) > 1 and 2 * len(capital) > len(tokens):
        return set()
    return {place for place in capital if not _opens(text, tokens, place) and not _plain(tokens[place])}


def _plain(token: Token) -> bool:
    return len(token.words) != 1 or token.words[0].stops or bool(token.words[0].kind) or bool(token.words[0].asks)


def _opens(text: str, tokens: Sequence[Token], place: int) -> bool:
    """Whether a sentence starts here."""
    return place == 0 or not BREAKS.isdisjoint(text[tokens[place - 1].end : tokens[place].start])


def _goes_on(text: str, tokens: Sequence[Token], place: int, names: set[int]) -> bool:
    return place in names and text[tokens[place - 1].end : tokens[place].start] == " "
