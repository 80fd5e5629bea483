"""How blanks are written: strings, numbers and dates (docs/bundle.md, `ops`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from stepwell.templates.escape import Sink, clean, escaped
from stepwell.templates.numerals import Numerals, localized, remembered, rounded, whole, written

Write = Callable[[object], str | None]
"""A value's text for one sink; None: missing or unfit."""
MAX_CHARS = 200
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T([01][0-9]|2[0-3]):[0-9]{2}(:[0-9]{2})?)?")


def writer(op: Sequence[Any], numerals: Numerals, names: Mapping[str, Sequence[str]], sink: Sink) -> Write:
    """How an op of a bundle writes. Raises ValueError or KeyError for one that there is not."""
    kind, _, *rest = op
    if kind == "s":
        return _string(limit(op), sink)
    if kind == "n":
        return _number(rest, numerals, sink)
    if kind == "d":
        return _date(rest[0], str(numerals[6]) if len(numerals) > 6 else "0", names, sink)  # noqa: PLR2004 - `zero`
    raise ValueError(f"op of kind {kind!r}")


def limit(op: Sequence[Any]) -> int:
    """Most characters that the op of a string takes."""
    return int(op[2]) if len(op) > 2 else MAX_CHARS  # noqa: PLR2004 - kind, slot, limit


def _string(max_chars: int, sink: Sink) -> Write:
    plain = sink == "plain"

    def write(value: object) -> str | None:
        if isinstance(value, str):
            text = value.strip(" ") if value.isprintable() else clean(value)
        else:
            text = whole(value) or ""
        if not text or len(text) > max_chars:
            return None
        return text if plain else escaped(text, sink)

    return write


def _number(rest: Sequence[Any], numerals: Numerals, sink: Sink) -> Write:
    min_frac, max_frac, *more = rest
    scale, before, after = [*more, *(1, "", "")[len(more) :]][:3]
    minus_before, minus_after = more[3:5] if len(more) > 4 else (f"{numerals[2]}{before}", after)  # noqa: PLR2004

    def spell(value: float) -> str:
        scaled = value if scale == 1 else float(value) * scale
        integer, fraction = rounded(scaled, min_frac, max_frac)
        negative = value < 0 and (integer.strip("0") or fraction.strip("0"))
        digits = written(integer, fraction, numerals)
        return escaped(f"{minus_before}{digits}{minus_after}" if negative else f"{before}{digits}{after}", sink)

    return remembered(spell)


def _date(pieces: Sequence[Any], zero: str, names: Mapping[str, Sequence[str]], sink: Sink) -> Write:
    makes = [_literal(each) if isinstance(each, str) else _field(str(each[0]), zero, names) for each in pieces]

    def write(value: object) -> str | None:
        if not isinstance(value, str) or not _DATE.fullmatch(value):
            return None
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:  # no such day or time
            return None
        return escaped("".join(make(moment) for make in makes), sink)

    return write


def _literal(text: str) -> Callable[[datetime], str]:
    return lambda _: text


def _field(field: str, zero: str, names: Mapping[str, Sequence[str]]) -> Callable[[datetime], str]:
    """How a field of a date is written. Raises KeyError for one that there is not."""
    if field in {"MMM", "MMMM", "LLL", "LLLL"}:
        return lambda moment: names[field][moment.month - 1]
    if field in {"E", "EEEE"}:
        return lambda moment: names[field][moment.isoweekday() % 7]
    if field == "a":
        return lambda moment: names["a"][moment.hour // 12]
    read, width = _COUNTED[field[0]], 1 if field == "y" else len(field)
    modulo = 100 if field == "yy" else 10_000
    return lambda moment: localized(f"{read(moment) % modulo:0{width}}", zero)


_COUNTED: dict[str, Callable[[datetime], int]] = {
    "y": lambda moment: moment.year,
    "M": lambda moment: moment.month,
    "d": lambda moment: moment.day,
    "H": lambda moment: moment.hour,
    "h": lambda moment: (moment.hour + 11) % 12 + 1,
    "m": lambda moment: moment.minute,
    "s": lambda moment: moment.second,
}
