"""A schema as a person writes it: the table `[schema]` of a campaign's TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from stepwell.errors import TemplateError
from stepwell.templates.cldr import locale
from stepwell.templates.numerals import number
from stepwell.templates.schema import MAX_CHARS, Schema, Slot

NAME = re.compile(r"[a-z][A-Za-z0-9_]{0,39}")
RESERVED = frozenset({"constructor", "reader", "toString", "valueOf", "toLocaleString"})
MAX_DECIMALS = 9
"""Names that mean something else to a runtime."""
MAX_SLOTS = 64


def load(file: Path) -> Schema:
    """The schema of a TOML file: its table `schema`, or all of it. Raises TemplateError."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise TemplateError(f"cannot be read: {error.strerror}", file=str(file)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TemplateError(f"not TOML: {error}", file=str(file)) from error
    return parse(table.get("schema", table), str(file))


def parse(table: Mapping[str, Any], file: str) -> Schema:
    """A schema from its table; its slots are tables by name. Raises TemplateError naming file and field."""
    _known(table, Schema, file, "schema", also={"slots"})
    slots = table.get("slots")
    if not isinstance(slots, Mapping) or not 0 < len(slots) <= MAX_SLOTS:
        raise TemplateError(f"schema.slots: 1 to {MAX_SLOTS} tables such as [schema.slots.name]", file=file)
    made = tuple(_slot(name, slot, file) for name, slot in slots.items())
    try:
        schema = msgspec.convert({**table, "slots": made}, Schema)
    except msgspec.ValidationError as error:
        raise TemplateError(f"schema: {error}", file=file) from error
    if not schema.name.strip() or not schema.name.isprintable():
        raise TemplateError("schema.name: give the campaign a name", file=file)
    if not schema.locales:
        raise TemplateError('schema.locales: at least one, such as "en"', file=file)
    for each in schema.locales:
        locale(each)
    if schema.missing == "default" and not any(slot.default is not None for slot in made):
        raise TemplateError('schema.missing = "default": no slot says what stands for a missing value', file=file)
    return schema


def _known(table: Mapping[str, Any], kind: type[msgspec.Struct], file: str, where: str, also: set[str]) -> None:
    """Raise TemplateError for a key that there is not, naming the nearest."""
    if not isinstance(table, Mapping):
        raise TemplateError(f"{where}: must be a table", file=file)
    names = set(kind.__struct_fields__) | also
    for key in table:
        if key not in names:
            near = get_close_matches(key, sorted(names), 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(names))}"
            raise TemplateError(f"{where}.{key}: there is no such key{hint}", file=file)


def _slot(name: str, table: Mapping[str, Any], file: str) -> Slot:
    where = f"schema.slots.{name}"
    _known(table, Slot, file, where, also=set())
    if not NAME.fullmatch(name) or name in RESERVED:
        raise TemplateError(f"{where}: a name is a small letter, then letters, digits and _", file=file)
    dated = {key: value.isoformat() if isinstance(value, date) else value for key, value in table.items()}
    try:
        slot = msgspec.convert({**dated, "name": name}, Slot)
    except msgspec.ValidationError as error:
        raise TemplateError(f"{where}: {error}", file=file) from error
    wrong = _wrong(slot)
    if wrong:
        raise TemplateError(f"{where}.{wrong}", file=file)
    return slot


def _wrong(slot: Slot) -> str:
    """What is wrong with a slot: the field, and what to write."""
    unknown = {form for forms in slot.form_values.values() for form in forms} - set(slot.forms)
    closed = bool(slot.values) and len(set(slot.values)) == len(slot.values)
    complaints = (
        (slot.kind == "choice" and not closed, "values: a choice says all of its values, each once"),
        (slot.kind in {"number", "money"} and not _ordered(slot.low, slot.high), "low, high: numbers, the lower first"),
        (slot.kind == "date" and not _dates(slot.low, slot.high), "low, high: days like 2026-01-31, the earlier first"),
        (slot.kind == "money" and not re.fullmatch(r"[A-Z]{3}", slot.currency), "currency: an ISO 4217 code like EUR"),
        (not 0 <= slot.decimals <= MAX_DECIMALS, f"decimals: 0 to {MAX_DECIMALS}"),
        (not 1 <= slot.max_chars <= MAX_CHARS["page"], f"max_chars: 1 to {MAX_CHARS['page']}"),
        (bool(slot.forms) and slot.kind != "entity", "forms: only an entity has forms"),
        (bool(unknown), f"form_values: {', '.join(sorted(unknown))} is not among forms"),
        (not slot.blank and slot.kind != "choice", "blank: only a choice can be selected by alone"),
    )
    return next((what for wrong, what in complaints if wrong), "")


def _ordered(low: object, high: object) -> bool:
    first, last = number(low), number(high)
    return not isinstance(low, str) and first is not None and last is not None and first < last


def _dates(low: object, high: object) -> bool:
    try:
        return date.fromisoformat(str(low)) <= date.fromisoformat(str(high))
    except ValueError:
        return False
