"""How a locale writes dates and times: CLDR's patterns, broken into a bundle's pieces; Babel holds the data."""

from __future__ import annotations

from collections.abc import Mapping

from babel import Locale
from babel.dates import tokenize_pattern

from stepwell.errors import TemplateError
from stepwell.templates.cldr import Pieces, locale

FIELDS = frozenset("y yy M MM d dd H HH h hh m mm s ss MMM MMMM LLL LLLL E EEEE a".split(" "))  # noqa: SIM905
_SAME = {"L": "M", "LL": "MM", "EE": "E", "EEE": "E", "ccc": "E", "c": "E", "cccc": "EEEE", "yyyy": "y", "aaa": "a"}
"""Fields that read alike here: CLDR tells a weekday that stands alone from one within a date."""
_SKELETONS = {
    "weekday": {"long": "EEEE", "medium": "E", "short": "E"},
    "day-weekday": {"long": "Ed", "medium": "Ed", "short": "Ed"},
    "month-day": {"long": "MMMMd", "medium": "MMMd", "short": "Md"},
    "month-day-weekday": {"long": "MMMMEd", "medium": "MMMEd", "short": "MEd"},
    "year-month-day-weekday": {"long": "yMMMEd", "medium": "yMMMEd", "short": "yMEd"},
}


def date(name: str, options: Mapping[str, str]) -> Pieces:
    """The pieces of a date; `options`: `fields` and `length` as MessageFormat 2 has them."""
    data = locale(name)
    fields, length = options.get("fields", "year-month-day"), options.get("length", "medium")
    if fields == "year-month-day":
        return pieces(data.date_formats[length].pattern, name)
    found = pieces(_skeleton(data, _SKELETONS[fields][length]), name)
    return _spelled_out(found) if length == "long" else found


def time(name: str, options: Mapping[str, str]) -> Pieces:
    """The pieces of a time of day; `options`: `precision`."""
    data = locale(name)
    precision = options.get("precision", "minute")
    if precision == "hour":
        return pieces(_skeleton(data, "h" if "h" in data.time_formats["short"].pattern else "H"), name)
    return pieces(data.time_formats["short" if precision == "minute" else "medium"].pattern, name)


def names(name: str, field: str) -> list[str]:
    """What a named field may read: twelve months, seven days from Sunday on, or the halves of a day."""
    data = locale(name)
    if field == "a":
        halves = data.day_periods["format"]["abbreviated"]
        return [halves["am"], halves["pm"]]
    width = "wide" if len(field) == 4 else "abbreviated"  # noqa: PLR2004 - MMMM and EEEE
    if field[0] == "E":
        days = data.days["format"][width]
        return [days[(day - 1) % 7] for day in range(7)]
    months = data.months["stand-alone" if field[0] == "L" else "format"][width]
    return [months[month] for month in range(1, 13)]


def pieces(pattern: str, name: str) -> Pieces:
    """A CLDR pattern as literals and `[field]`s. Raises TemplateError for a field that no runtime writes."""
    found: Pieces = []
    for kind, token in tokenize_pattern(pattern):
        if kind == "chars":
            found.append(str(token))
            continue
        whole = str(token[0]) * int(token[1])
        field = _SAME.get(whole, whole)
        if field not in FIELDS:
            raise TemplateError(f"locale {name}: CLDR's pattern {pattern!r} has the field {field}; use another length")
        found.append([field])
    return found


def _skeleton(data: Locale, wanted: str) -> str:
    """The pattern of a skeleton, or of the nearest that CLDR has."""
    if set(wanted) == {"E"}:
        return wanted
    for skeleton in (wanted, wanted.replace("MMMM", "MMM")):
        if skeleton in data.datetime_skeletons:
            return str(data.datetime_skeletons[skeleton].pattern)
    raise TemplateError(f"locale {data}: CLDR has no pattern for {wanted}; use other fields")


def _spelled_out(found: Pieces) -> Pieces:
    """Long names for short ones."""
    longer = {"MMM": "MMMM", "LLL": "LLLL", "E": "EEEE"}
    return [piece if isinstance(piece, str) else [longer.get(piece[0], piece[0])] for piece in found]
