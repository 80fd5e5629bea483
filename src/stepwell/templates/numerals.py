"""How numbers are read, rounded, grouped and counted, the same in every runtime."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

Numerals = Sequence[str | int]
"""`[decimal, group, minus, primary, secondary, min_grouping, zero?]` of a bundle."""
Condition = tuple[str, int, int, list[int | list[int]]]
Rules = list[tuple[str, list[list[Condition]]]]
"""Plural categories with their conditions: any of the lists, all of a list."""

ROOT: Numerals = (".", ",", "-", 3, 3, 1)
MAX_NUMBER = 1e15
NUM_KEPT = 4096
"""Numbers of which it is remembered what was made of them: most campaigns count to a few hundred."""
_T = TypeVar("_T")
MAX_FRACTION = 9
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")


def number(value: object) -> float | int | None:
    """The finite number that a value is or says, or None."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # NaN compares false.
    return value if -MAX_NUMBER < value < MAX_NUMBER else None


def remembered(make: Callable[[float], _T]) -> Callable[[object], _T | None]:
    """What a function makes of a number that a value is or says, made once for each; None where it is no number."""
    known: dict[float, _T] = {}

    def read(value: object) -> _T | None:
        kind = value.__class__
        # Only true numbers are looked up: True would be found at 1.
        if kind is int or kind is float:
            found = known.get(value)  # type: ignore[call-overload]
            if found is not None:
                return found  # type: ignore[no-any-return]
        said = number(value)
        if said is None:
            return None
        made = make(said)
        if len(known) < NUM_KEPT:
            known[said] = made
        return made

    return read


def whole(value: object) -> str | None:
    """The ASCII digits of a whole number, or None for anything else."""
    if isinstance(value, (str, bool)) or (found := number(value)) is None or found != int(found):
        return None
    return str(int(found))


def rounded(value: float, min_frac: int, max_frac: int) -> tuple[str, str]:
    """Integer and fraction digits of a number's size: the exact value of the double, ties away from zero."""
    if value == (whole := int(value)):
        return str(abs(whole)), "0" * min_frac
    size = abs(value)
    # A tie has max_frac + 1 binary places exactly: then, and only then, is this product an odd integer.
    doubled = math.ldexp(size, max_frac + 1)
    if doubled % 2 == 1:
        digits = str((int(doubled) * 5**max_frac + 1) // 2).zfill(max_frac + 1)
        integer, fraction = digits[: len(digits) - max_frac], digits[len(digits) - max_frac :]
    else:
        integer, _, fraction = f"{size:.{max_frac}f}".partition(".")
    while len(fraction) > min_frac and fraction[-1] == "0":
        fraction = fraction[:-1]
    return integer, fraction


def written(integer: str, fraction: str, numerals: Numerals) -> str:
    """Digits with the locale's group and decimal signs and numerals."""
    decimal, group, _, primary, secondary, min_grouping, *zero = numerals
    text = _grouped(integer, str(group), int(primary), int(secondary), int(min_grouping))
    text = f"{text}{decimal}{fraction}" if fraction else text
    return localized(text, str(zero[0])) if zero else text


def localized(text: str, zero: str) -> str:
    """ASCII digits in another numbering system."""
    return text.translate({ord("0") + digit: chr(ord(zero) + digit) for digit in range(10)})


def _grouped(integer: str, group: str, primary: int, secondary: int, min_grouping: int) -> str:
    if not primary or len(integer) < primary + min_grouping:
        return integer
    groups, rest = [integer[-primary:]], integer[:-primary]
    while rest:
        groups.append(rest[-secondary:])
        rest = rest[:-secondary]
    return group.join(reversed(groups))


def category(integer: str, fraction: str, rules: Rules) -> str:
    """The plural category of a written number."""
    trimmed = fraction.rstrip("0")
    operands = {"i": int(integer), "v": len(fraction), "w": len(trimmed)}
    operands |= {"f": int(fraction or 0), "t": int(trimmed or 0)}
    operands["n"] = -1 if trimmed else operands["i"]  # a number with a fraction is in no range
    for name, either in rules:
        if any(all(_holds(operands, condition) for condition in every) for every in either):
            return name
    return "other"


def _holds(operands: dict[str, int], condition: Condition) -> bool:
    operand, modulo, negated, ranges = condition
    value = operands[operand]
    if modulo and value >= 0:
        value %= modulo
    inside = any(value == each if isinstance(each, int) else each[0] <= value <= each[1] for each in ranges)
    return inside != bool(negated)
