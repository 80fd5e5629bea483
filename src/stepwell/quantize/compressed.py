"""A Hugging Face folder with its linear layers in compressed-tensors' packed integers, for vLLM and transformers.

Codes become 4 or 8 bits in 32-bit words beside 16-bit scales (the format's `pack-quantized`: weights only, activations
stay 16 bits). Embedding, norms and, unless it has codes, the head stay 16 bits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stepwell.errors import DistillError
from stepwell.quantize.formats import FORMATS, ROW, Format, check
from stepwell.quantize.weights import read, told

if TYPE_CHECKING:
    from stepwell.quantize.grids import Coded

BITS = {"int8": 8, "int4_g32": 4, "int4_g128": 4}
WORD = 32
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that vLLM reads as one, and so in one format."""
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
LARGEST_HALF = 65504.0
Tensors = dict[str, NDArray[Any]]


def to_compressed(folder: Path, out: Path, coded: Mapping[str, Coded]) -> Path:
    """Write `out`, whole or not at all: the folder with codes (short names) in place of those weights.

    What was there lies in `.NAME.old` until the new folder is in its place. Raises DistillError for codes of another
    format, shape or place than compressed-tensors and vLLM have, for damaged weights, and where `out` is no model.
    """
    config = told(folder / "config.json")
    placeable(coded, config, folder)
    replaceable(out)
    made = tensors(folder, coded, tied=bool(config.get("tie_word_embeddings")))
    new = out.with_name(f".{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for file in folder.iterdir():
        if file.suffix in {".json", ".jinja", ".model", ".txt"} and "safetensors" not in file.name:
            shutil.copyfile(file, new / file.name)
    changed = {**config, "dtype": "float16", "quantization_config": scheme(coded, config)}
    changed.pop("torch_dtype", None)
    (new / "config.json").write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")
    save_file(made, new / "model.safetensors", {"format": "pt"})
    with (new / "model.safetensors").open("rb") as written:
        os.fsync(written.fileno())
    return placed(new, out)


def replaceable(out: Path) -> None:
    """Raise DistillError where something else than a model lies there."""
    if out.exists() and not (out / "config.json").is_file():
        raise DistillError("is there already, and is no model", file=str(out))


def placed(new: Path, out: Path) -> Path:
    """Put a folder in the place of another. Raises DistillError where that is no model."""
    replaceable(out)
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return out


def placeable(coded: Mapping[str, Coded], config: Mapping[str, Any], folder: Path) -> None:
    """Raise DistillError for codes that have no place in the format, or that vLLM would not read."""
    for name, each in coded.items():
        if each.format.name not in BITS:
            raise DistillError(f"{name} is {each.format.name}; compressed-tensors has {', '.join(BITS)}")
        check(each.format, name, each.codes.shape[1])
        if name == EMBEDDING or (name == HEAD and config.get("tie_word_embeddings")):
            raise DistillError(f"{name} stays 16 bits in compressed-tensors: give it F16 in the recipe")
    for parts in TOGETHER:
        layers: dict[str, set[str]] = defaultdict(set)
        for name in told_names(folder, parts):
            layers[name.rsplit(".", 2)[0]].add(coded[name].format.name if name in coded else "16 bits")
        for layer, kinds in layers.items():
            if len(kinds) > 1:
                what = f"{layer} has {' and '.join(sorted(kinds))} in {', '.join(parts)}, which vLLM reads as one"
                raise DistillError(f"{what}: give them one format")


def told_names(folder: Path, parts: tuple[str, ...]) -> list[str]:
    """Short names of the weights of some parts."""
    return [short(name) for name, _ in read(folder) if name.split(".")[-2] in parts]


def short(name: str) -> str:
    """A weight's short name."""
    return name.removeprefix("model.")


def scheme(coded: Mapping[str, Coded], config: Mapping[str, Any]) -> dict[str, Any]:
    """`quantization_config`: which layers are packed how. Each format is a group, its layers named one by one."""
    layers: dict[str, list[str]] = defaultdict(list)
    for name, each in coded.items():
        layers[each.format.name].append(module(name))
    groups = {
        f"group_{at}": {"targets": targets(names), "weights": weights_of(FORMATS[kind])}
        for at, (kind, names) in enumerate(sorted(layers.items()))
    }
    heads = [] if HEAD in coded or config.get("tie_word_embeddings") else ["lm_head"]
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": heads,
    }


def module(name: str) -> str:
    """The layer of a weight, as the model names it."""
    layer = name.removesuffix(".weight")
    return layer if name == HEAD else f"model.{layer}"


def targets(names: list[str]) -> list[str]:
    """Layers as patterns: exactly these."""
    return [f"re:^{re.escape(name)}$" for name in sorted(names)]


def weights_of(format_: Format) -> dict[str, Any]:
    """How weights of a format are told."""
    by_row = format_.group == ROW
    return {
        "num_bits": BITS[format_.name],
        "type": "int",
        "symmetric": True,
        "dynamic": False,
        "strategy": "channel" if by_row else "group",
        "group_size": None if by_row else format_.group,
        "observer": "minmax",
    }


def tensors(folder: Path, coded: Mapping[str, Coded], *, tied: bool) -> Tensors:
    """Every tensor of the file. Raises DistillError for codes without a weight, or weights that 16 bits cannot hold."""
    made: Tensors = {}
    left = dict(coded)
    for name, weight in read(folder):
        if short(name) == HEAD and tied:
            continue
        if not np.isfinite(weight).all() or np.abs(weight).max(initial=0.0) > LARGEST_HALF:
            raise DistillError(f"{name} has weights that are NaN or beyond {LARGEST_HALF:.0f}", file=str(folder))
        each = left.pop(short(name), None)
        if each is None:
            made[name] = weight.astype(np.float16)
        elif tuple(each.codes.shape) != weight.shape:
            raise DistillError(f"{name} is {weight.shape}, and its codes are {tuple(each.codes.shape)}")
        else:
            made |= {f"{name}_{part}": array for part, array in layer(each).items()}
    if left:
        raise DistillError(f"has codes for {', '.join(sorted(left))}, which it has not", file=str(folder))
    return made


def layer(coded: Coded) -> Tensors:
    """One linear layer: packed codes, scales, and the shape that it has unpacked."""
    scale = np.asarray(coded.grid.scale, np.float32)
    half = scale.astype(np.float16)
    if not np.isfinite(half).all() or not np.array_equal(half.astype(np.float32), scale):
        raise DistillError("a scale is no 16-bit number: NaN, infinite, or rounded nowhere")
    codes = np.asarray(coded.codes, np.float32).astype(np.int64)
    shape = np.array(codes.shape, np.int64)
    return {"packed": words(codes, BITS[coded.format.name]), "scale": half, "shape": shape}


def words(codes: NDArray[np.int64], bits: int) -> NDArray[np.int32]:
    """Codes (rows, width), lifted above 0, side by side in 32-bit words, the first one lowest; zeros fill the last."""
    rows, width = codes.shape
    each = WORD // bits
    lifted = np.zeros((rows, -(-width // each) * each), np.uint32)
    lifted[:, :width] = codes + (1 << (bits - 1))
    shifts = (bits * np.arange(each)).astype(np.uint32)
    joined: NDArray[np.uint32] = np.bitwise_or.reduce(lifted.reshape(rows, -1, each) << shifts, axis=-1)
    return joined.view(np.int32)
