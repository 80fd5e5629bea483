"""TOML into typed values: what is wrong is told with its line, and an unknown key with the nearest known one."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.errors import ConfigError


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


def typed(text: str, wanted: type[Any], *, file: str) -> Any:  # noqa: ANN401 - an instance of `wanted`
    """Decode TOML into a Struct; syntax, unknown keys and wrong types are errors with their line."""
    try:
        return msgspec.convert(tomllib.loads(text), wanted)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"is not TOML: {error}", file=file, line=int(found[1]) if found else 0) from error
    except msgspec.ValidationError as error:
        raise explained(str(error), text, wanted, file) from error


def explained(message: str, text: str, wanted: type[Any], file: str) -> ConfigError:
    """Turn msgspec's "... - at `$.cache.path`" into a ConfigError with the line of that key."""
    what, _, place = message.partition(" - at `$")
    keys = [key for key in re.split(r"[.\[\]]+", place.rstrip("`").replace("[...]", ".*")) if key]
    while "*" in keys:
        keys[keys.index("*")] = culprit(message, keys[: keys.index("*")], tomllib.loads(text), wanted)
    unknown = re.search(r"unknown field `(.+)`", what)
    if unknown:
        keys.append(unknown[1])
        what = f"unknown key{nearest(unknown[1], known_keys(wanted))}"
    elif missing := re.search(r"missing required field `(.+)`", what):
        what = f"the key {missing[1]!r} is missing; add it"
    return ConfigError(what, file=file, line=line_of(text, keys), field=".".join(keys))


def culprit(message: str, path: list[str], tree: dict[str, Any], wanted: type[Any]) -> str:
    """Which entry of the table at `path` is wrong by itself: msgspec does not say its name; "?" where none is."""
    table = reduce(lambda inner, key: inner[int(key) if isinstance(inner, list) else key], path, tree)
    for name, entry in list(table.items()):
        table.clear()
        table[name] = entry
        try:
            msgspec.convert(tree, wanted)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return str(name)
    return "?"


def nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """Say `; did you mean X?` where something known is close to `name`."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def known_keys(wanted: type[Any]) -> set[str]:
    """Every key that may stand anywhere below a Struct."""
    keys: set[str] = set()
    seen: set[type] = set()
    kinds: list[Any] = [msgspec.inspect.type_info(wanted)]
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, msgspec.inspect.StructType):
            if kind.cls not in seen:
                seen.add(kind.cls)
                keys |= {field.encode_name for field in kind.fields}
                kinds += [field.type for field in kind.fields]
        else:
            inner = [getattr(kind, name, None) for name in ("item_type", "key_type", "value_type")]
            kinds += [each for each in inner if each] + [*getattr(kind, "types", ()), *getattr(kind, "item_types", ())]
    return keys


def placed(error: ConfigError, file: Path) -> ConfigError:
    """The same error with the line of its field, where what only shows while a well is built names no file."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return error
    line = 0 if error.file or not error.field else line_of(text, error.field.split("."))
    return ConfigError(error.what, file=str(file), line=line, field=error.field) if line else error


def line_of(text: str, keys: list[str]) -> int:
    """Line (from 1) of the deepest key of a path that can be found; 0 where none can."""
    best, depth_found, wanted = 0, 0, f"{'.'.join(keys)}."  # compared as text: a name may hold dots
    table: list[str] = []
    arrays: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[(\[)?\s*(.+?)\s*\]\]?\s*(#.*)?$", line):
            table = split_key(header[2])
            if header[1]:
                arrays[header[2]] = arrays.get(header[2], -1) + 1
                table = [*table, str(arrays[header[2]])]
            path = table
        elif pair := re.match(r"\s*([^#=\s][^=]*?)\s*=", line):
            path = [*table, *split_key(pair[1])]
        else:
            continue
        found = f"{'.'.join(path)}."
        depth = min(len(found), len(wanted))
        if depth > depth_found and found[:depth] == wanted[:depth]:
            best, depth_found = number, depth
    return best


def split_key(dotted: str) -> list[str]:
    """Split a TOML key at its dots, quotes respected."""
    return [part[0] or part[1] or part[2] for part in re.findall(r'"([^"]*)"|\'([^\']*)\'|([^.\s"\']+)', dotted)]
