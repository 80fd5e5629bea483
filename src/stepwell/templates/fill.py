"""Fill a bundle's blanks for one reader: the Python runtime of docs/bundle.md. Needs nothing but the core."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import cache
from itertools import accumulate
from typing import Any, Literal, TypeVar, cast
from zlib import crc32

import msgspec
from msgspec import Struct

from stepwell.errors import TemplateError
from stepwell.templates.choose import MAX_WEIGHT, point
from stepwell.templates.classes import Classify, classifier
from stepwell.templates.escape import Sink, clean, escaped
from stepwell.templates.numerals import ROOT
from stepwell.templates.ops import Write, limit, writer

VERSION = 1
Why = Literal["missing", "unfit", "unknown"]
_T = TypeVar("_T")


class Filled(Struct, frozen=True):
    """A reader's text, and which variant it is."""

    text: str
    variant: int


class Unfilled(Struct, frozen=True):
    """Why a reader gets no text: the slot that failed first."""

    slot: str
    why: Why


class Unfit(Exception):  # noqa: N818 - an outcome that the caller asked for one variant of
    """One variant cannot be filled with these values."""

    def __init__(self, slot: str, why: Why) -> None:
        super().__init__(f"{slot}: {why}")
        self.slot, self.why = slot, why


class _Bundle(Struct):
    """The file."""

    v: int
    campaign: str
    locale: str
    ops: list[list[Any]]
    t: dict[str, list[str | list[Any]]]
    missing: Literal["skip", "variant"] = "skip"
    default: dict[str, str | int | float] = {}
    num: list[str | int] = msgspec.field(default_factory=lambda: list(ROOT))
    plural: dict[str, list[Any]] = {}
    names: dict[str, list[str]] = {}
    w: dict[str, list[int]] = {}


Blank = tuple[str, Write]
Pattern = tuple[str, tuple[Blank, ...]]
"""A format for `%`, and what goes into it."""
Chooser = tuple[str, Classify, int]
"""Slot, its classes, how many there are."""
Variant = tuple[tuple[Chooser, ...], tuple[Pattern, ...]]


class Template(Struct, frozen=True):
    """The variants of a template, and what their weights say."""

    variants: tuple[Variant, ...]
    sums: tuple[int, ...]
    start: int
    """CRC of the seed and a colon."""


def load(data: bytes, sink: Sink = "plain") -> Filler:
    """A bundle, ready to be filled for one sink. Raises TemplateError where it is not sound."""
    try:
        parsed = msgspec.json.decode(data, type=_Bundle)
        if parsed.v != VERSION:
            raise TemplateError(f"bundle of version {parsed.v}: this runtime reads version {VERSION}; update it")
        return _loaded(parsed, sink)
    except (msgspec.DecodeError, RecursionError, KeyError, IndexError, TypeError, ValueError) as error:
        raise TemplateError(f"not a bundle: {error}; fetch or compile it anew") from error


def _loaded(parsed: _Bundle, sink: Sink) -> Filler:
    writers = [(str(op[1]), writer(op, parsed.num, parsed.names, sink)) for op in parsed.ops]
    templates = {}
    # Variants that ask the same share the answer.
    classifiers = cache(lambda selector: classifier(msgspec.json.decode(selector), parsed.plural))
    for name, variants in parsed.t.items():
        weights = parsed.w.get(name, [1] * len(variants))
        if len(weights) != len(variants) or min(weights, default=0) < 0 or not 1 <= sum(weights) <= MAX_WEIGHT:
            raise ValueError(f"weights of {name}")
        made = tuple(_variant(each, classifiers, writers, sink) for each in variants)
        seed = f"{parsed.campaign}/{name}:".encode(errors="replace")
        templates[name] = Template(made, tuple(accumulate(weights)), crc32(seed))
    limits = {write: limit(op) for op, (_, write) in zip(parsed.ops, writers, strict=True) if op[0] == "s"}
    return Filler(parsed, templates, limits)


def _variant(
    variant: str | list[Any], classifiers: Callable[[bytes], Classify], writers: list[Blank], sink: Sink
) -> Variant:
    if isinstance(variant, str):
        return (), (_pattern(variant, writers, sink),)
    *patterns, selectors, table = variant
    made = [_pattern(each, writers, sink) for each in patterns]
    choosers = tuple((str(each[1]), classifiers(msgspec.json.encode(each)), len(each[2]) + 1) for each in selectors)
    num_cells = 1
    for _, _, size in choosers:
        num_cells *= size
    if len(table) != num_cells or min(table) < 0:
        raise ValueError(f"a table of {len(table)} places for {num_cells} classes")
    return choosers, tuple(made[place] for place in table)


_PLACE = re.compile(r"\{([0-9]*)\}")


def _pattern(pattern: str, writers: list[Blank], sink: Sink) -> Pattern:
    blanks = []
    parts = []
    # Odd parts are what stands between braces.
    for odd, part in enumerate(_PLACE.split(pattern)):
        if odd % 2 == 0:
            parts.append(escaped(part, sink).replace("%", "%%"))
        elif part:
            parts.append("%s")
            blanks.append(writers[int(part)])
        else:
            parts.append(escaped("{", sink).replace("%", "%%"))
    return "".join(parts), tuple(blanks)


class Filler:
    """A bundle for one sink; frozen, may be shared between threads."""

    __slots__ = ("_others", "campaign", "default", "limits", "locale", "templates")

    def __init__(self, parsed: _Bundle, templates: Mapping[str, Template], limits: Mapping[Write, int]) -> None:
        self.campaign, self.locale, self.default = parsed.campaign, parsed.locale, parsed.default
        self._others = parsed.missing == "variant"
        self.templates = templates
        self.limits = limits
        """Most characters of the values that a string's writer takes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The templates that there are."""
        return tuple(self.templates)

    def num_variants(self, name: str) -> int:
        """How many variants a template has; 0: there is none of this name."""
        return len(template.variants) if (template := self.templates.get(name)) else 0

    def slots(self, name: str) -> frozenset[str]:
        """Every slot that some variant of a template speaks of. Raises KeyError for an unknown name."""
        variants = self.templates[name].variants
        blanks = {slot for _, patterns in variants for _, each in patterns for slot, _ in each}
        return frozenset(blanks | {slot for choosers, _ in variants for slot, _, _ in choosers})

    def fill(self, name: str, values: Mapping[str, object], reader: str = "") -> Filled | Unfilled:
        """A reader's text of a template: always the same one for the same reader and values."""
        template = self.templates.get(name)
        if template is None:
            return Unfilled("", "unknown")
        first = bisect_right(template.sums, point(template.start, reader, template.sums[-1]))
        text = self._text(template.variants[first], values)
        if text.__class__ is str:
            return Filled(text, first)
        return self._next(template, first, values, cast("Unfilled", text)) if self._others else cast("Unfilled", text)

    def write(self, name: str, variant: int, values: Mapping[str, object]) -> str:
        """The text of one variant, whatever its weight. Raises Unfit; KeyError or IndexError where there is none."""
        text = self._text(self.templates[name].variants[variant], values)
        if isinstance(text, Unfilled):
            raise Unfit(text.slot, text.why)
        return text

    def _next(
        self, template: Template, first: int, values: Mapping[str, object], unfilled: Unfilled
    ) -> Filled | Unfilled:
        """The first of the other variants that can be filled, in turn."""
        sums, num = template.sums, len(template.variants)
        for turn in range(first + 1, first + num):
            place = turn % num
            if sums[place] > (sums[place - 1] if place else 0):
                text = self._text(template.variants[place], values)
                if isinstance(text, str):
                    return Filled(text, place)
        return unfilled

    def _text(self, variant: Variant, values: Mapping[str, object]) -> str | Unfilled:
        choosers, table = variant
        get = values.get
        cell = 0
        for slot, classify, size in choosers:
            found = classify(get(slot))
            if found is None:
                found = self._instead(slot, classify)
                if found is None:
                    return Unfilled(slot, _why(get(slot)))
            cell = cell * size + found
        pattern, blanks = table[cell]
        texts = [write(get(slot)) for slot, write in blanks]
        if None in texts:
            for place, (slot, write) in enumerate(blanks):
                texts[place] = texts[place] or self._instead(slot, write)
                if texts[place] is None:
                    return Unfilled(slot, _why(get(slot)))
        return pattern % tuple(texts)

    def _instead(self, slot: str, use: Callable[[object], _T | None]) -> _T | None:
        """What the policy's default makes of a slot that failed."""
        return use(self.default[slot]) if slot in self.default else None


def _why(value: object) -> Why:
    return "missing" if value is None or (isinstance(value, str) and not clean(value)) else "unfit"
