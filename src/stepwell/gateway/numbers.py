"""JSON in and out with one way to write each number: ECMAScript's (RFC 8785, 3.2.2.3), for browsers digest it, too.

1, 1.0 and 1e0 are the same number and are written 1; so are 0 and -0.0. Integers keep all their digits.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import Raw

INTEGERS = 2**53
"""Below this, every whole number is a double of its own."""
MOST_WHOLE, LEAST_POINT = 21, -6
"""ECMAScript writes no exponent where the decimal point stands between these."""
LEAST_ALIKE = 1e-5
"""From here on, msgspec writes fractions as ECMAScript does."""


class Odd:
    """A number that msgspec would write in its own way: very small or very large."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


def read(text: str) -> int | float | Odd:
    """A number with a fraction or an exponent. Raises ValueError where no double is as large."""
    value = float(text)
    return value if LEAST_ALIKE <= value < INTEGERS and value % 1 else plain(value)


def plain(value: float) -> int | float | Odd:
    """A double as what is written right: whole numbers as int. Raises ValueError for infinity."""
    if math.isinf(value):
        raise ValueError("the number is out of range")
    if abs(value) < INTEGERS and not value % 1:
        return int(value)
    return value if LEAST_ALIKE <= abs(value) < INTEGERS else Odd(value)


def write(odd: object) -> Raw:
    """An odd number in ECMAScript's form. Raises TypeError for anything else."""
    if not isinstance(odd, Odd):
        raise TypeError(f"{type(odd).__name__} is no JSON")
    return Raw(ecmascript(odd.value).encode())


def ecmascript(value: float) -> str:
    """Number::toString of ECMA-262: the shortest digits that read back as the same double."""
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0") or "0"
    if len(digits) <= point <= MOST_WHOLE:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= MOST_WHOLE:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if LEAST_POINT < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"


decode = msgspec.json.Decoder(float_hook=read).decode
"""JSON with numbers as they are written again by `encode`; what is out of range raises DecodeError."""
encode: Any = msgspec.json.Encoder(order="sorted", enc_hook=write).encode
"""Keys in the order of their code points."""
