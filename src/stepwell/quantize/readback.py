"""What a GGUF file holds, under the folder's own names and in its own order: the way back of `export.py`.

The reader is gguf's, not the writer's other half: a mistake in one is not undone by the same mistake in the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from msgspec import Struct

from stepwell.errors import DistillError
from stepwell.quantize.architectures import ARCHITECTURES, order, shapes
from stepwell.quantize.weights import Floats


class Held(Struct, frozen=True):
    """A file's contents."""

    fields: dict[str, Any]
    weights: dict[str, Floats]
    """By short name."""
    formats: dict[str, str]
    """By short name."""

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have which format."""
        return dict(Counter(self.formats.values()))


def held(file: Path, config: Mapping[str, Any]) -> Held:
    """Read a file. Raises DistillError where it is damaged, or not of the folder's architecture and sizes."""
    architecture = ARCHITECTURES[config["model_type"]]
    try:
        reader = gguf.GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {each.name: each for each in reader.tensors}
        with np.errstate(all="ignore"):  # what is not finite is seen by whoever compares
            weights = {name: gguf.dequantize(each.data, each.tensor_type) for name, each in tensors.items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise DistillError(f"is no whole GGUF file ({error})", file=str(file)) from error
    kind = gguf.MODEL_ARCH_NAMES[architecture.kind]
    if fields.get("general.architecture") != kind:
        raise DistillError(f"is a {fields.get('general.architecture')!r}, and the folder a {kind!r}", file=str(file))
    names = gguf.get_tensor_name_map(architecture.kind, config["num_hidden_layers"])
    made: dict[str, Floats] = {}
    formats: dict[str, str] = {}
    for short, shape in shapes(config).items():
        name = names.get_name(f"{'' if short.startswith('lm_head') else 'model.'}{short}", (".weight",)) or ""
        if name not in weights or weights[name].shape != shape:
            raise DistillError(f"has no {name} of the shape {shape}", file=str(file))
        made[short] = restored(short, weights[name], config, architecture.lift)
        formats[short] = tensors[name].tensor_type.name
    return Held(fields, made, formats)


def restored(short: str, weight: Floats, config: Mapping[str, Any], lift: float) -> Floats:
    """A tensor in the folder's order of rows, norms as short as there."""
    if weight.ndim == 1:
        return weight - np.float32(lift)
    rows = order(short, config)
    if rows is None:
        return weight
    back = np.empty_like(weight)
    back[rows] = weight
    return back
