"""What a GGUF file says of itself, without its weights: fields, and the format of each tensor.

The layout is ggml's (docs/gguf.md there), versions 2 and 3, little endian. What serves reads it without the package.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from stepwell.errors import ConfigError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_ITEMS = 1 << 24
"""More entries than that, and the file is damaged."""
FORMATS = (
    {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K"}
    | {13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S"}
    | {22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}
)


class Header(Struct, frozen=True):
    """Fields by name, and how many tensors there are of each format."""

    fields: dict[str, Any]
    formats: dict[str, int]

    @property
    def architecture(self) -> str:
        """As llama or qwen3."""
        return str(self.fields.get("general.architecture", ""))


def header(path: Path) -> Header:
    """Read a file's header. Raises ConfigError where it is no GGUF file, or a damaged one."""
    try:
        with path.open("rb") as file:
            return parsed(file)
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", file=str(path), field="path") from error
    except (ValueError, struct.error, MemoryError, RecursionError) as error:
        raise ConfigError(f"is no whole GGUF file ({error})", file=str(path), field="path") from error


def parsed(file: BinaryIO) -> Header:
    """Raises ValueError and struct.error."""
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = number(file, "I")
    if version not in VERSIONS:
        raise ValueError(f"version {version} is none that is known here")
    num_tensors, num_fields = counted(file), counted(file)
    fields = {}
    for _ in range(num_fields):
        name = text(file)
        fields[name] = value(file, number(file, "I"))
    formats: Counter[str] = Counter()
    for _ in range(num_tensors):
        text(file)
        file.seek(8 * number(file, "I"), 1)
        kind = number(file, "I")
        formats[FORMATS.get(kind, f"number {kind}")] += 1
        file.seek(8, 1)
    return Header(fields, dict(formats))


def value(file: BinaryIO, kind: int) -> Any:  # noqa: ANN401 - whatever the file holds
    """One value of a kind."""
    if kind == STRING:
        return text(file)
    if kind != ARRAY:
        return number(file, code(kind))
    inner, num = number(file, "I"), counted(file)
    if inner in (STRING, ARRAY):
        read: Callable[[], Any] = (lambda: text(file)) if inner == STRING else (lambda: value(file, ARRAY))
        return [read() for _ in range(num)]
    layout = f"<{num}{code(inner)}"
    return list(struct.unpack(layout, file.read(struct.calcsize(layout))))


def code(kind: int) -> str:
    """The struct letter of a number. Raises ValueError."""
    if kind not in NUMBERS:
        raise ValueError(f"a value of kind {kind}, which is none")
    return NUMBERS[kind]


def number(file: BinaryIO, letter: str) -> Any:  # noqa: ANN401
    """One number."""
    layout = f"<{letter}"
    return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]


def counted(file: BinaryIO) -> int:
    """How many of something follow. Raises ValueError where that cannot be."""
    num = int(number(file, "Q"))
    if num > MOST_ITEMS:
        raise ValueError(f"{num} entries")
    return num


def text(file: BinaryIO) -> str:
    """A string. Raises ValueError where the file ends in it."""
    size = counted(file)
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it is cut short")
    return data.decode("utf-8", errors="replace")
