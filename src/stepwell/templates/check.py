"""Check messages before anybody sees them: cheap gates first, then every value of every blank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from stepwell.errors import TemplateError
from stepwell.templates import gates, probes, structure
from stepwell.templates.compile import bundle
from stepwell.templates.fill import Filler, Unfit, load
from stepwell.templates.likeness import TOO_ALIKE, Shingles, alike, shingles
from stepwell.templates.mf2 import Message, parse
from stepwell.templates.samples import combinations_of
from stepwell.templates.schema import Schema, Values

Verify = Callable[[Values, str], list[str]]
"""What is wrong with a text for these values: a domain's own checker."""
Gate = Literal[
    "profile", "slots", "facts", "words", "spacing", "plurals", "compile", "fill", "protected", "verify", "alike", ""
]
MAX_SOURCE_CHARS = 20_000


class Verdict(Struct, frozen=True):
    """Whether a message is kept; else which gate refused it, and why."""

    source: str
    kept: bool
    gate: Gate = ""
    reason: str = ""


def check(
    schema: Schema, locale: str, name: str, sources: Sequence[str], *, verify: Verify | None = None
) -> list[Verdict]:
    """One verdict for each source, in order; of near-duplicates the first is kept. Never raises for bad sources."""
    verdicts = []
    kept: list[Shingles] = []
    for source in sources:
        verdict = check_one(schema, locale, name, source, verify=verify)
        if verdict.kept:
            words = shingles(parse(source))
            if any(alike(words, other) >= TOO_ALIKE for other in kept):
                verdict = Verdict(source, kept=False, gate="alike", reason="says what an earlier variant says")
            else:
                kept.append(words)
        verdicts.append(verdict)
    return verdicts


def check_one(schema: Schema, locale: str, name: str, source: str, *, verify: Verify | None = None) -> Verdict:
    """The verdict on one source, likeness apart."""
    if len(source) > MAX_SOURCE_CHARS:
        return Verdict(source, kept=False, gate="profile", reason=f"longer than {MAX_SOURCE_CHARS} characters")
    try:
        message = parse(source)
    except TemplateError as error:
        return Verdict(source, kept=False, gate="profile", reason=str(error))
    for gate, reason in _read(message, schema, locale, name):
        if reason:
            return Verdict(source, kept=False, gate=gate, reason=reason)
    try:
        data = bundle(schema, locale, {name: [source]})
    except TemplateError as error:
        return Verdict(source, kept=False, gate="compile", reason=str(error))
    gate, reason = _filled(load(data), message, schema, verify)
    return Verdict(source, kept=not reason, gate=gate, reason=reason)


def _read(message: Message, schema: Schema, locale: str, name: str) -> list[tuple[Gate, str]]:
    return [
        ("slots", gates.slots(message, schema, name)),
        ("slots", gates.unsaid(message, schema, locale)),
        ("facts", gates.facts(message, schema, locale, name)),
        ("words", gates.words(message, schema)),
        ("spacing", gates.spacing(message, locale)),
        ("plurals", gates.plurals(message, schema, locale) or gates.counted(message, schema, locale)),
    ]


def _filled(filler: Filler, message: Message, schema: Schema, verify: Verify | None) -> tuple[Gate, str]:
    """Fill every value of every blank of the one template and look at the texts."""
    (name,), locale = filler.names, filler.locale
    fixed: Values = {slot: value for slot, value in (structure.parse(name, schema) or {}).items() if value}
    protected = {slot.name for slot in schema.slots if slot.protected}
    texts: defaultdict[tuple[object, ...], set[str]] = defaultdict(set)
    for values in combinations_of(schema, sorted(message.slots), locale):
        try:
            text = filler.write(name, 0, values)
        except Unfit as unfit:
            return "fill", f"${unfit.slot} is {unfit.why} with {values}"
        if reason := _probed(text, schema, locale):
            return "fill", reason
        if verify and (wrong := verify(values | fixed, text)):
            return "verify", f"{'; '.join(wrong)}: {text[:80]!r}"
        texts[tuple(value for slot, value in values.items() if slot not in protected)].add(text)
    if any(len(each) > 1 for each in texts.values()):
        return "protected", f"the text changes with {', '.join(sorted(protected & message.slots))}"
    return "", ""


def _probed(text: str, schema: Schema, locale: str) -> str:
    probed = (probes.length(text, schema.longest), probes.blanks(text), probes.casing(text))
    return next(filter(None, probed), "") or probes.agreement(text, locale)
