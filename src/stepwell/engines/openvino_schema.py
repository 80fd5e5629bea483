"""The part of a JSON Schema that OpenVINO's grammar surely takes, in bounded time.

Its grammar (xgrammar's) is made in the middle of a step that all requests share: a schema it fails at, or works on for
seconds, would be everybody's. So it is given plain words alone; whatever it is not given is checked at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

MOST_NODES, MOST_LETTERS, MOST_ITEMS, MOST_NUMBER = 500, 256, 64, 10**9
TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
BOUNDS = (
    ("string", "minLength", "maxLength", MOST_LETTERS),
    ("array", "minItems", "maxItems", MOST_ITEMS),
    ("integer", "minimum", "maximum", MOST_NUMBER),
)
DEFS = "#/$defs/"
ODD = frozenset('"\\/~%#')
ANYTHING: dict[str, Any] = {}


class TooMuch(ValueError):  # noqa: N818 - as errors.py names them
    """More than a grammar is to be made of."""


def plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that allows all that `schema` allows, and often more."""
    try:
        told = node(schema, [0])
        defs = {name: node(each, [0]) for name, each in schema.get("$defs", {}).items() if is_plain(name)}
    except TooMuch:
        return {"type": "object"} if schema.get("type") == "object" else ANYTHING
    known = {f"{DEFS}{name}" for name in defs}
    told = resolved(told, known)
    return {**told, "$defs": resolved(defs, known)} if defs else told


def node(schema: Any, num: list[int]) -> dict[str, Any]:  # noqa: ANN401, PLR0911 - JSON; one line a case
    """One schema, and those in it; `num` counts them. Raises TooMuch."""
    num[0] += 1
    if num[0] > MOST_NODES:
        raise TooMuch
    match schema:
        case {"$ref": str(place)}:
            return {"$ref": place} if place.startswith(DEFS) and is_plain(place.removeprefix(DEFS)) else ANYTHING
        case {"const": value}:
            return {"enum": [value]} if is_small(value) else ANYTHING
        case {"enum": [_, *_] as values}:
            return {"enum": values} if is_small(values) else ANYTHING
        case {"anyOf": [_, *_] as each}:
            return {"anyOf": [node(one, num) for one in each]}
        case {"type": str(kind)} if kind in TYPES:
            return {"type": kind, **inside(kind, schema, num)}
        case {"type": [_, *_] as kinds} if TYPES.issuperset(kind for kind in kinds if isinstance(kind, str)):
            return {"type": kinds}
    return ANYTHING


def inside(kind: str, schema: Mapping[str, Any], num: list[int]) -> dict[str, Any]:
    """What is said of values of one type. Raises TooMuch."""
    told = bounds(kind, schema)
    if kind == "array" and isinstance(schema.get("items"), dict):
        return {**told, "items": node(schema["items"], num)}
    if kind == "object" and isinstance(schema.get("properties"), dict) and not {"patternProperties"} & schema.keys():
        return {**told, **properties(schema, num)}
    return told if kind != "array" else {}


def properties(schema: Mapping[str, Any], num: list[int]) -> dict[str, Any]:
    """What an object holds. Raises TooMuch for names that a grammar might stumble over."""
    required = schema.get("required", [])
    named = {**schema["properties"], **{name: ANYTHING for name in required if name not in schema["properties"]}}
    if not all(map(is_plain, named)):
        raise TooMuch
    told: dict[str, Any] = {"properties": {name: node(each, num) for name, each in named.items()}}
    if required:
        told["required"] = required
    if schema.get("additionalProperties") is False:
        told["additionalProperties"] = False
    return told


def bounds(kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """How long or large a value may be, where both ends are sensible."""
    for of, least, most, limit in BOUNDS:
        low, high = schema.get(least, 0 if kind != "integer" else -limit), schema.get(most, limit)
        sensible = type(low) is int and type(high) is int and -limit <= low <= high <= limit
        if kind == of and sensible:
            return {name: schema[name] for name in (least, most) if name in schema}
    return {}


def is_plain(name: object) -> bool:
    """Whether a name is letters that mean nothing in a grammar, nor in a JSON pointer."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= MOST_LETTERS
        and name.isprintable()
        and not set(name) & set('"\\/~%#')
    )


def is_small(value: object) -> bool:
    """Whether a value may stand in a grammar as it is."""
    return len(msgspec.json.encode(value)) <= MOST_NODES * MOST_ITEMS


def resolved(told: Any, known: set[str]) -> Any:  # noqa: ANN401 - JSON
    """Take away references that lead nowhere."""
    if isinstance(told, list):
        return [resolved(each, known) for each in told]
    if not isinstance(told, dict):
        return told
    if isinstance(told.get("$ref"), str):
        return told if told["$ref"] in known else ANYTHING
    return {name: resolved(each, known) if name != "enum" else each for name, each in told.items()}
