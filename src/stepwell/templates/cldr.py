"""What CLDR says of a locale, in the shapes that a bundle carries; Babel holds the data."""

from __future__ import annotations

import unicodedata
from functools import cache

from babel import Locale, UnknownLocaleError
from babel.numbers import NumberPattern, get_currency_precision

from stepwell.errors import TemplateError
from stepwell.templates.numerals import Condition, Rules

_GROUPED_FROM_FIVE = frozenset(
    ["be", "bg", "es", "et", "hu", "hy", "ia", "ie", "it", "ka", "lv", "pl", "pt_PT", "ru_UA", "sl", "sq"]
)
"""CLDR's minimumGroupingDigits 2 (1234, but 12 345); Babel leaves it out."""
_UNGROUPED = frozenset({"ee", "en_US_POSIX"})
Pieces = list[str | list[str]]
Affixes = tuple[str, str, str, str]
"""Before and after a number, then the same for a negative one."""


@cache
def locale(name: str) -> Locale:
    """Babel's locale of a language tag; TemplateError when CLDR has none."""
    try:
        return Locale.parse(name, sep="-")
    except (UnknownLocaleError, ValueError, TypeError):
        raise TemplateError(f"locale {name!r}: CLDR has none of this name; write a tag such as en or pt-BR") from None


def numerals(name: str) -> list[str | int]:
    """`num` of a bundle."""
    data = locale(name)
    symbols, system = _symbols(data), data.default_numbering_system
    primary, secondary = data.decimal_formats[None].grouping
    language = {data.language, f"{data.language}_{data.territory}", str(data)}
    if language & _UNGROUPED:
        primary = secondary = 0
    min_grouping = 2 if language & _GROUPED_FROM_FIVE and data.territory not in _grouped_from_four(data) else 1
    zero = _zero(system)
    signs = [symbols["decimal"], symbols["group"], symbols["minusSign"]]
    return [*signs, primary, secondary, min_grouping, *([zero] if zero != "0" else [])]


def _grouped_from_four(data: Locale) -> frozenset[str]:
    """Territories in which Spanish groups from four digits on, unlike Spain."""
    spain = frozenset({"EA", "ES", "GQ", "IC", "PH"})
    return frozenset({data.territory}) - spain if data.language == "es" and data.territory else frozenset()


def _symbols(data: Locale) -> dict[str, str]:
    symbols: dict[str, str] = data.number_symbols[data.default_numbering_system]
    return symbols


def _zero(system: str) -> str:
    names = {"arab": "ARABIC-INDIC", "arabext": "EXTENDED ARABIC-INDIC", "beng": "BENGALI", "deva": "DEVANAGARI"}
    names |= {"mymr": "MYANMAR", "tibt": "TIBETAN"}
    if system == "latn":
        return "0"
    if system not in names:
        raise TemplateError(f"numbering system {system!r} is not known here; use a locale with Latin digits")
    return unicodedata.lookup(f"{names[system]} DIGIT ZERO")


def percent(name: str) -> Affixes:
    """What stands around a percentage."""
    data = locale(name)
    return _affixes(data.percent_formats[None], data, "")


def currency(name: str, code: str, display: str) -> Affixes:
    """What stands around an amount of money; `display`: symbol, narrowSymbol or code."""
    data = locale(name)
    sign = code if display == "code" else data.currency_symbols.get(code, code)
    if display == "narrowSymbol":
        sign = locale("en").currency_symbols.get(code, sign) if len(sign) > 1 else sign
    return _affixes(data.currency_formats["standard"], data, sign)


def currency_digits(code: str) -> int:
    """Decimals of a currency."""
    return get_currency_precision(code)


def _affixes(pattern: NumberPattern, data: Locale, sign: str) -> Affixes:
    symbols = _symbols(data)

    def spoken(affix: str, *, before: bool) -> str:
        text = affix.replace("'", "").replace("-", symbols["minusSign"]).replace("%", symbols["percentSign"])
        # CLDR's currencySpacing: a no-break space between digits and a sign that ends in a letter.
        edge = sign[-1:] if before else sign[:1]
        touches = affix.endswith("¤") if before else affix.startswith("¤")
        gap = "\u00a0" if touches and not unicodedata.category(edge).startswith("S") else ""
        return text.replace("¤", sign + gap if before else gap + sign)

    (before, minus_before), (after, minus_after) = pattern.prefix, pattern.suffix
    return (
        spoken(before, before=True),
        spoken(after, before=False),
        spoken(minus_before, before=True),
        spoken(minus_after, before=False),
    )


def rules(name: str, *, ordinal: bool) -> Rules:
    """Plural rules of a locale; `other` is left out."""
    data = locale(name)
    form = data.ordinal_form if ordinal else data.plural_form
    return [(category, _folded(_either(ast))) for category, ast in form.abstract]


def _folded(either: list[list[Condition]]) -> list[list[Condition]]:
    """Without what is asked of compact exponents (`e`, `c`): nothing is written compactly here, so they are 0."""
    possible = [every for every in either if all(_holds_at_zero(each) for each in every if each[0] in "ec")]
    return [[each for each in every if each[0] not in "ec"] for every in possible]


def _holds_at_zero(condition: Condition) -> bool:
    _, _, negated, ranges = condition
    return any(each in (0, [0, 0]) or (isinstance(each, list) and each[0] <= 0 <= each[1]) for each in ranges) != bool(
        negated
    )


def _either(ast: tuple) -> list[list[Condition]]:  # type: ignore[type-arg]  # Babel's nested tuples
    kind, parts = ast
    return [each for part in parts for each in _either(part)] if kind == "or" else [_every(ast)]


def _every(ast: tuple) -> list[Condition]:  # type: ignore[type-arg]
    kind, parts = ast
    if kind == "and":
        return [each for part in parts for each in _every(part)]
    negated = kind == "not"
    _, (_, expression, (_, ranges)) = parts[0] if negated else ast
    return [(*_operand(expression), int(negated), [_range(low, high) for low, high in ranges])]


def _operand(expression: tuple) -> tuple[str, int]:  # type: ignore[type-arg]
    kind, parts = expression
    return (parts[0][0], parts[1][1][0]) if kind == "mod" else (kind, 0)


def _range(low: tuple, high: tuple) -> int | list[int]:  # type: ignore[type-arg]
    first, last = low[1][0], high[1][0]
    return first if first == last else [first, last]
