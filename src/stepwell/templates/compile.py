"""From messages to a bundle: whatever can be decided before a reader comes is decided here (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from stepwell.errors import TemplateError
from stepwell.templates import cldr, dates
from stepwell.templates.choose import MAX_WEIGHT
from stepwell.templates.mf2 import Blank, Message, Selector, Variant, parse
from stepwell.templates.numerals import Rules, category, rounded
from stepwell.templates.schema import MAX_VALUE_CHARS, Schema, Slot

VERSION = 1
MODES = {"string": "x", "plural": "c", "ordinal": "o", "exact": "e"}
PLAIN_NUMBER = [0, 3, 1]
"""Fraction digits and scale of a number whose function says nothing."""
NUM_SIGNS = 6
"""Fields of `num` where digits are ASCII; a seventh says which others."""

Json = Any
"""What JSON can say."""
Op = list[Json]


def bundle(
    schema: Schema,
    locale: str,
    templates: Mapping[str, Sequence[str]],
    *,
    weights: Mapping[str, Sequence[int]] | None = None,
) -> bytes:
    """One locale's bundle from MessageFormat 2 sources by template name.

    A template whose weights are all 0 is left out. Raises TemplateError: a source that is not in the profile, a slot
    that the schema has not, a function that does not suit a slot, weights that fit no template.
    """
    weights = _checked(weights or {}, templates)
    ops: list[Op] = []
    messages = {
        name: [_parsed(source, name, place) for place, source in enumerate(sources)]
        for name, sources in sorted(templates.items())
        if sources and any(weights.get(name, (1,)))
    }
    table: dict[str, Json] = {
        name: [_variant(each, schema, locale, ops) for each in variants] for name, variants in messages.items()
    }
    used = [message for variants in messages.values() for message in variants]
    slots = frozenset(slot for message in used for slot in message.slots)
    parts: dict[str, Json] = {"v": VERSION, "campaign": schema.name, "locale": locale}
    parts |= _policy(schema, slots) | _data(locale, ops, used) | {"ops": list(ops), "t": table}
    uneven = {name: list(weights[name]) for name in messages if name in weights and set(weights[name]) != {1}}
    return msgspec.json.encode(parts | ({"w": uneven} if uneven else {}))


def _checked(
    weights: Mapping[str, Sequence[int]], templates: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[int]]:
    for name, each in weights.items():
        if name in templates and len(each) != len(templates[name]):
            raise TemplateError(f"{len(each)} weights for the {len(templates[name])} variants of {name}: one for each")
        if any(weight < 0 for weight in each) or sum(each) > MAX_WEIGHT:
            raise TemplateError(f"weights of {name}: whole numbers from 0 on that add up to at most {MAX_WEIGHT}")
    return weights


def _parsed(source: str, name: str, place: int) -> Message:
    try:
        return parse(source)
    except TemplateError as error:
        raise TemplateError(f"{name}, variant {place}: {error}") from None


def _policy(schema: Schema, slots: frozenset[str]) -> dict[str, Json]:
    """What stands for values that a reader has not."""
    known = {slot.name: slot.default for slot in schema.slots if slot.name in slots and slot.default is not None}
    parts: dict[str, Json] = {"missing": "variant"} if schema.missing == "variant" else {}
    return parts | ({"default": dict(known)} if schema.missing == "default" and known else {})


def _data(locale: str, ops: Sequence[Op], messages: Sequence[Message]) -> dict[str, Json]:
    """What of CLDR the bundle needs."""
    parts: dict[str, Json] = {}
    numerals = cldr.numerals(locale)
    written = {str(op[0]) for op in ops}
    if "n" in written or ("d" in written and len(numerals) > NUM_SIGNS):
        parts["num"] = list(numerals)
    keys = {mode: _keys_of(messages, mode) for mode in ("plural", "ordinal")}
    rules = {mode: _rules(locale, keys[mode], ordinal=mode == "ordinal") for mode in keys}
    if any(rules.values()):
        parts["plural"] = {"c": rules["plural"], "o": rules["ordinal"]}
    fields = sorted({piece[0] for op in ops if op[0] == "d" for piece in op[2] if isinstance(piece, list)})
    named = {field: list(dates.names(locale, field)) for field in fields if _is_named(str(field))}
    return parts | ({"names": named} if named else {})


def _is_named(field: str) -> bool:
    return field[0] in "Ea" or field[:3] in {"MMM", "LLL"}


def _keys_of(messages: Sequence[Message], mode: str) -> set[str]:
    found = set()
    for message in messages:
        for place, selector in enumerate(message.selectors):
            if selector.mode == mode:
                found |= {key for each in message.variants if (key := each.keys[place]) is not None}
    return found


def _rules(locale: str, keys: set[str], *, ordinal: bool) -> list[Json]:
    """The rules of the categories that somebody asks for; CLDR's rules exclude each other."""
    return [[name, rule] for name, rule in cldr.rules(locale, ordinal=ordinal) if name in keys]


def _variant(message: Message, schema: Schema, locale: str, ops: list[Op]) -> Json:
    """A message: its pattern, or its patterns with the table that decides between them."""
    patterns = [_pattern(each, schema, locale, ops) for each in message.variants]
    if not message.selectors:
        return patterns[0]
    selectors = [_selector(message, place, schema) for place in range(len(message.selectors))]
    wanted = [_wishes(message, place, list(each[2]), locale) for place, each in enumerate(selectors)]
    chosen = [_best(message.variants, wishes) for wishes in product(*wanted)]
    distinct = list(dict.fromkeys(patterns[each] for each in chosen))
    if len(distinct) == 1:
        return distinct[0]
    places: list[Json] = [distinct.index(patterns[each]) for each in chosen]
    return [*distinct, list(selectors), places]


def _pattern(variant: Variant, schema: Schema, locale: str, ops: list[Op]) -> str:
    """Text with `{k}` for op k."""
    written = []
    for part in variant.pattern:
        if isinstance(part, str):
            written.append(part.replace("{", "{}"))
            continue
        op = _op(part, schema, locale)
        if op not in ops:
            ops.append(op)
        written.append(f"{{{ops.index(op)}}}")
    return "".join(written)


def _selector(message: Message, place: int, schema: Schema) -> list[Json]:
    """`[mode, slot, keys, extra?]`; keys in the order in which they were first written."""
    selector = message.selectors[place]
    slot = _slot(selector.slot, schema)
    numeric = selector.mode != "string"
    if numeric and slot.kind not in {"number", "money"}:
        raise TemplateError(f"${selector.slot} is a {slot.kind}: select it by :string")
    keys: dict[float | str, str] = {}
    for each in message.variants:
        key = each.keys[place]
        if key is not None:
            keys.setdefault(_comparable(key, numeric=numeric), key)
    found: list[Json] = [MODES[selector.mode], selector.slot, list(keys.values())]
    extra = _extra(selector)
    return found if selector.mode in {"string", "exact"} or extra == PLAIN_NUMBER else [*found, list(extra)]


def _comparable(key: str, *, numeric: bool) -> float | str:
    return float(key) if numeric and is_number(key) else key


def is_number(key: str) -> bool:
    """The key means a number."""
    return key[:1] == "-" or key[:1].isdigit()


def _extra(selector: Selector) -> list[int]:
    """Fraction digits and scale of the number that is counted."""
    low, high = fractions(selector.blank, 0)
    return [low, high, 1]


def _wishes(message: Message, place: int, keys: list[str], locale: str) -> list[list[str | None]]:
    """For each class of values of a selector: the keys that match it, the best first."""
    selector = message.selectors[place]
    numeric = selector.mode != "string"
    said = {each.keys[place] for each in message.variants} - {None}
    classes: list[list[str | None]] = []
    for key in keys:
        same = [
            other for other in said if _comparable(str(other), numeric=numeric) == _comparable(key, numeric=numeric)
        ]
        wishes: list[str | None] = [*same]
        if selector.mode in {"plural", "ordinal"} and is_number(key):
            wishes.append(_category(float(key), selector, locale))
        classes.append([*wishes, None])
    return [*classes, [None]]


def _category(value: float, selector: Selector, locale: str) -> str:
    low, high, _ = _extra(selector)
    rules: Rules = cldr.rules(locale, ordinal=selector.mode == "ordinal")
    return category(*rounded(value, low, high), rules)


def _best(variants: Sequence[Variant], wishes: Sequence[Sequence[str | None]]) -> int:
    """MessageFormat 2's best match: the variant whose keys are wished for most, the first selector first."""
    ranked = []
    for place, variant in enumerate(variants):
        if all(key in wanted for key, wanted in zip(variant.keys, wishes, strict=True)):
            ranks = tuple(wanted.index(key) for key, wanted in zip(variant.keys, wishes, strict=True))
            ranked.append((ranks, place))
    return min(ranked)[1]


def _slot(name: str, schema: Schema) -> Slot:
    slot = schema.slot(name)
    if slot is None:
        known = ", ".join(each.name for each in schema.slots)
        raise TemplateError(f"${name}: the schema has no such slot; it has {known}")
    form = name.partition(".")[2]
    if form and form not in slot.forms:
        raise TemplateError(f"${name}: {slot.name} has no form {form}; it has {', '.join(slot.forms) or 'none'}")
    return slot


def _op(blank: Blank, schema: Schema, locale: str) -> Op:
    """How a blank is written: as its function says, else as its slot's kind has it."""
    slot = _slot(blank.slot, schema)
    function = blank.function or {"number": "number", "money": "currency", "date": "date"}.get(slot.kind, "string")
    if function == "string":
        return ["s", blank.slot, *([slot.max_chars] if slot.max_chars != MAX_VALUE_CHARS else [])]
    if function in {"date", "time"}:
        if slot.kind != "date":
            raise TemplateError(f"${blank.slot} is a {slot.kind}: it cannot be written by :{function}")
        return ["d", blank.slot, list((dates.date if function == "date" else dates.time)(locale, blank.options))]
    if slot.kind not in {"number", "money"}:
        raise TemplateError(f"${blank.slot} is a {slot.kind}: it cannot be written by :{function}")
    return _trimmed(_number(blank, function, slot, locale), str(cldr.numerals(locale)[2]))


def _number(blank: Blank, function: str, slot: Slot, locale: str) -> Op:
    if function == "percent":
        return ["n", blank.slot, *fractions(blank, 0), 100, *cldr.percent(locale)]
    if function == "currency":
        code = blank.options.get("currency", slot.currency)
        if not code:
            raise TemplateError(f"${blank.slot}: which currency? Write {{${blank.slot} :currency currency=EUR}}")
        digits = int(blank.options.get("fractionDigits", cldr.currency_digits(code)))
        display = blank.options.get("currencyDisplay", "symbol")
        return ["n", blank.slot, digits, digits, 1, *cldr.currency(locale, code, display)]
    decimals = slot.decimals if slot.kind == "number" and not blank.function else PLAIN_NUMBER[1]
    return ["n", blank.slot, *fractions(blank, decimals), 1, "", "", str(cldr.numerals(locale)[2]), ""]


def fractions(blank: Blank, decimals: int) -> tuple[int, int]:
    """Fewest and most fraction digits of a blank."""
    if blank.function == "integer":
        return 0, 0
    default = PLAIN_NUMBER[1] if blank.function == "number" else decimals
    low = int(blank.options.get("minimumFractionDigits", 0))
    high = int(blank.options.get("maximumFractionDigits", max(default, low)))
    return min(low, high), high


def _trimmed(op: Op, minus: str) -> Op:
    """Without the trailing fields that say what a runtime takes for granted."""
    *head, scale, before, after, minus_before, minus_after = op
    if (minus_before, minus_after) != (f"{minus}{before}", after):
        return op
    if (before, after) != ("", ""):
        return [*head, scale, before, after]
    return head if scale == 1 else [*head, scale]
