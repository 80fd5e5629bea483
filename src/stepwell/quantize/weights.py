"""The weights of a Hugging Face folder as numpy arrays: safetensors of 16 or 32 bits, in one file or in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepwell.errors import DistillError

Floats = NDArray[np.float32]
BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def files(folder: Path) -> list[Path]:
    """The safetensors files of a folder. Raises DistillError where there is none, or a shard is missing."""
    index = folder / "model.safetensors.index.json"
    names = sorted(set(told(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    for name in names:
        if not (folder / name).is_file():
            raise DistillError(
                f"{name} is not there; name a folder as Hugging Face's save_pretrained writes it", file=str(folder)
            )
    return [folder / name for name in names]


def told(file: Path) -> dict[str, Any]:
    """A JSON object of the folder. Raises DistillError."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DistillError(f"cannot be read ({error})", file=str(file)) from error
    if not isinstance(value, dict):
        raise DistillError("is no JSON object", file=str(file))
    return value


def read(folder: Path) -> Iterator[tuple[str, Floats]]:
    """Every weight by name, in 32 bits, one file in memory at a time. Raises DistillError for a damaged file."""
    for file in files(folder):
        data = file.read_bytes()
        try:
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            header.pop("__metadata__", None)
            for name, each in header.items():
                yield name, array(data, 8 + size, each)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DistillError(
                f"is damaged or no safetensors file of 16 or 32 bits ({error})", file=str(file)
            ) from error


def array(data: bytes, start: int, each: Mapping[str, Any]) -> Floats:
    """One weight. Raises KeyError for another kind of number, ValueError where the file is cut short."""
    begin, end = each["data_offsets"]
    raw = np.frombuffer(data, f"<u{BYTES[each['dtype']]}", (end - begin) // BYTES[each["dtype"]], start + begin)
    match each["dtype"]:
        case "BF16":
            values = (raw.astype(np.uint32) << 16).view(np.float32)
        case "F16":
            values = raw.view(np.float16).astype(np.float32)
        case _:
            values = raw.view(np.float32)
    return values.reshape(each["shape"])
