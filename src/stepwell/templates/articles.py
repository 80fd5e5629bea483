"""English articles before a blank: `a {$food}` becomes a message that selects `a` or `an` by the value."""

from __future__ import annotations

import re
from itertools import product

from stepwell.templates.probes import vowel
from stepwell.templates.schema import Schema, Slot

MAX_SLOTS, MAX_KEYS = 2, 24
_BEFORE = re.compile(r"\b([Aa])n? (?=\{\$([A-Za-z]\w*)\})")


def articled(schema: Schema, source: str) -> str:
    """A plain source with the right article before each closed choice; any other source as it is."""
    if source.startswith("."):
        return source
    slots = [slot for name in dict.fromkeys(_BEFORE.findall(source)) if (slot := schema.slot(name[1])) and slot.values]
    mixed = list(
        {slot.name: slot for slot in slots if len({vowel(value) for value in slot.values if value}) > 1}.values()
    )
    if len(mixed) > MAX_SLOTS or any(len(vowels(slot)) > MAX_KEYS for slot in mixed):
        return source
    settled = {slot.name: bool(vowels(slot)) for slot in slots if slot not in mixed}
    if not mixed:
        return _with(source, settled)
    lines = [f".input {{${slot.name} :string}}" for slot in mixed] + [
        f".match {' '.join(f'${slot.name}' for slot in mixed)}"
    ]
    for keys in product(*([*vowels(slot), "*"] for slot in mixed)):
        told = {slot.name: key != "*" for slot, key in zip(mixed, keys, strict=True)}
        lines.append(f"{' '.join(_key(key) for key in keys)} {{{{{_with(source, settled | told)}}}}}")
    return "\n".join(lines)


def vowels(slot: Slot) -> list[str]:
    """The slot's values that want `an`."""
    return [value for value in slot.values if value and vowel(value)]


def _with(source: str, wants_an: dict[str, bool]) -> str:
    def told(found: re.Match[str]) -> str:
        article, name = found[1], found[2]
        return f"{article}n " if wants_an.get(name, found[0][1:2] == "n") else f"{article} "

    return _BEFORE.sub(told, source)


def _key(key: str) -> str:
    return key if key == "*" or key.isalpha() else f"|{key}|"
