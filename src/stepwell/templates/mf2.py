"""Unicode MessageFormat 2, narrowed to Stepwell's profile: blanks and selectors, no code, no markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from moz.l10n.formats.mf2 import MF2ParseError, MF2ValidationError, mf2_parse_message, mf2_validate_message
from moz.l10n.model import CatchallKey, Expression, PatternMessage, SelectMessage, VariableRef
from msgspec import Struct

from stepwell.errors import TemplateError

Mode = Literal["string", "plural", "ordinal", "exact"]

MAX_SELECTORS = 4
MAX_VARIANTS = 96
CATEGORIES = ("zero", "one", "two", "few", "many", "other")
_DIGITS = tuple("0123456789")
_FRACTIONS: dict[str, tuple[str, ...]] = {"minimumFractionDigits": _DIGITS, "maximumFractionDigits": _DIGITS}
_SELECT: dict[str, tuple[str, ...]] = {"select": ("plural", "ordinal", "exact")}
_CODE = re.compile(r"[A-Z]{3}")
_FIELDS = ("weekday", "day-weekday", "month-day", "month-day-weekday", "year-month-day", "year-month-day-weekday")
PROFILE: dict[str, dict[str, tuple[str, ...]]] = {
    "string": {},
    "number": _FRACTIONS | _SELECT,
    "integer": _SELECT,
    "percent": _FRACTIONS,
    "currency": {"currency": (), "currencyDisplay": ("symbol", "narrowSymbol", "code"), "fractionDigits": _DIGITS},
    "date": {"fields": _FIELDS, "length": ("long", "medium", "short")},
    "time": {"precision": ("hour", "minute", "second")},
}
"""The functions of the profile, their options, and what these may be (a currency: any ISO 4217 code)."""
_NUMBER_KEY = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?")


class Blank(Struct, frozen=True):
    """A place where a slot's value is written. No function: as the schema's kind has it."""

    slot: str
    function: str = ""
    options: Mapping[str, str] = {}


class Selector(Struct, frozen=True):
    """A slot whose value decides between variants."""

    slot: str
    mode: Mode
    blank: Blank
    """How the number would be written: its plural category depends on it."""


class Variant(Struct, frozen=True):
    """One text of a message: a key for each selector (None: any value), and the pattern."""

    keys: tuple[str | None, ...]
    pattern: tuple[str | Blank, ...]


class Message(Struct, frozen=True):
    """A message within the profile."""

    declarations: tuple[Blank, ...]
    selectors: tuple[Selector, ...]
    variants: tuple[Variant, ...]

    @property
    def slots(self) -> frozenset[str]:
        """Every slot that the message needs."""
        blanks = {part.slot for each in self.variants for part in each.pattern if isinstance(part, Blank)}
        return frozenset(blanks | {selector.slot for selector in self.selectors})


class _Refused(ValueError):  # noqa: N818 - said of a message
    """Outside the profile."""


def parse(source: str, *, file: str = "", line: int = 0) -> Message:
    """The message of a source, or TemplateError with what is wrong and its line."""
    try:
        parsed = mf2_parse_message(source)
        mf2_validate_message(parsed)
        return _message(parsed)
    except MF2ParseError as error:
        what, place = str(error).partition("\n")[0], error.pos
        before = source[:place]
        column = place - (before.rfind("\n") + 1) + 1
        raise TemplateError(
            f"not MessageFormat 2: {what} at column {column}; mend the message",
            file=file,
            line=max(line, 1) + before.count("\n"),
        ) from None
    except (MF2ValidationError, _Refused) as error:
        raise TemplateError(str(error.args[-1]), file=file, line=line) from None


def _message(parsed: PatternMessage | SelectMessage) -> Message:
    declared: dict[str, Blank | str] = {}
    # A declaration may only speak of those before it.
    for name, expression in parsed.declarations.items():
        declared[name] = _resolved(expression, declared)
    blanks = tuple(each for each in declared.values() if isinstance(each, Blank))
    if isinstance(parsed, PatternMessage):
        return Message(blanks, (), (Variant((), _pattern(parsed.pattern, declared)),))
    if len(parsed.selectors) > MAX_SELECTORS or len(parsed.variants) > MAX_VARIANTS:
        raise _Refused(f"at most {MAX_SELECTORS} selectors and {MAX_VARIANTS} variants; split the message")
    selectors = tuple(_selector(each.name, declared) for each in parsed.selectors)
    variants = tuple(_variant(keys, pattern, selectors, declared) for keys, pattern in parsed.variants.items())
    if len({each.keys for each in variants}) < len(variants):
        raise _Refused("two variants have the same keys; drop one")
    return Message(blanks, selectors, variants)


def _resolved(expression: Expression, declared: Mapping[str, Blank | str]) -> Blank | str:
    """What an expression writes: a blank, or a constant."""
    function, options = expression.function or "", _options(expression)
    if not isinstance(expression.arg, VariableRef):
        if expression.arg is None or function not in {"", "string"}:
            raise _Refused(f"{{:{function}}} needs a variable; write constants as text")
        return expression.arg
    known = declared.get(expression.arg.name, Blank(expression.arg.name))
    if isinstance(known, str) or not function:
        return known
    return Blank(known.slot, function, dict(known.options) | options if function == known.function else options)


def _options(expression: Expression) -> dict[str, str]:
    if not expression.function:
        return {}
    allowed = PROFILE.get(expression.function)
    if allowed is None:
        raise _Refused(f"function :{expression.function} is outside the profile; use one of :{', :'.join(PROFILE)}")
    return {name: _option(expression.function, allowed, name, value) for name, value in expression.options.items()}


def _option(function: str, allowed: dict[str, tuple[str, ...]], name: str, value: str | VariableRef) -> str:
    if name not in allowed:
        known = ", ".join(allowed) or "none"
        raise _Refused(f":{function} has no option {name} in the profile (it has: {known}); drop it")
    if isinstance(value, VariableRef):
        raise _Refused(f":{function} {name}: an option must be a constant, not ${value.name}")
    if not (value in allowed[name] or (name == "currency" and _CODE.fullmatch(value))):
        choice = ", ".join(allowed[name]) or "an ISO 4217 code such as EUR"
        raise _Refused(f":{function} {name}={value}: must be one of {choice}")
    return value


def _pattern(parts: Sequence[object], declared: Mapping[str, Blank | str]) -> tuple[str | Blank, ...]:
    """Text and blanks, neighbouring texts joined."""
    pattern: list[str | Blank] = []
    for part in parts:
        if not isinstance(part, (str, Expression)):
            raise _Refused("markup is outside the profile; write plain text")
        each = part if isinstance(part, str) else _resolved(part, declared)
        if isinstance(each, str) and pattern and isinstance(pattern[-1], str):
            pattern[-1] += each
        elif each != "":
            pattern.append(each)
    return tuple(pattern)


def _selector(name: str, declared: Mapping[str, Blank | str]) -> Selector:
    blank = declared[name]
    if isinstance(blank, str):
        raise _Refused(f"${name} is a constant; a message cannot be selected by it")
    if blank.function == "string":
        return Selector(blank.slot, "string", blank)
    if blank.function not in {"number", "integer"}:
        raise _Refused(f"a message cannot be selected by :{blank.function}; use :string, :number or :integer")
    mode = blank.options.get("select", "plural")
    return Selector(blank.slot, mode, blank)  # type: ignore[arg-type]  # one of _SELECT


def _variant(
    keys: tuple[str | CatchallKey, ...],
    pattern: Sequence[object],
    selectors: tuple[Selector, ...],
    declared: Mapping[str, Blank | str],
) -> Variant:
    named = tuple(key if isinstance(key, str) else None for key in keys)
    for key, selector in zip(named, selectors, strict=True):
        if key is not None:
            _check_key(key, selector)
    return Variant(named, _pattern(pattern, declared))


def _check_key(key: str, selector: Selector) -> None:
    if selector.mode == "string" or _NUMBER_KEY.fullmatch(key):
        return
    if selector.mode == "exact":
        raise _Refused(f"key {key} of ${selector.slot}: must be a number or *, because of select=exact")
    if key not in CATEGORIES:
        raise _Refused(f"key {key} of ${selector.slot}: must be a number, a plural category or *")
