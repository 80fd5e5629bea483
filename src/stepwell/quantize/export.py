"""A Hugging Face folder as the one GGUF file that llama.cpp serves: weights, tokenizer and chat template.

Matrices that were put on a grid go in as their codes and scales, the others are rounded to one format (Q8_0: 32 weights
share a scale), norms stay in 32 bits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf.quants import quantize

from stepwell.errors import DistillError
from stepwell.quantize.architectures import ARCHITECTURES, add_shape, config_of, order, shapes, turns
from stepwell.quantize.pack import packed
from stepwell.quantize.weights import Floats, read
from stepwell.quantize.words import add_tokenizer

if TYPE_CHECKING:
    from stepwell.quantize.grids import Coded

FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "Q6_K": gguf.LlamaFileType.MOSTLY_Q6_K,
    "Q5_K": gguf.LlamaFileType.MOSTLY_Q5_K_M,
    "Q5_1": gguf.LlamaFileType.MOSTLY_Q5_1,
    "Q5_0": gguf.LlamaFileType.MOSTLY_Q5_0,
    "Q4_K": gguf.LlamaFileType.MOSTLY_Q4_K_M,
    "Q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "Q3_K": gguf.LlamaFileType.MOSTLY_Q3_K_M,
    "Q2_K": gguf.LlamaFileType.MOSTLY_Q2_K,
}
"""What a file says it is, by the format that most of its bytes have."""
ALONE = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""Formats that need nothing but the weights; the others need codes."""
LARGEST_HALF = 65504.0


def to_gguf(
    folder: Path, out: Path, kind: str = "Q8_0", *, coded: Mapping[str, Coded] | None = None, name: str = ""
) -> Path:
    """Write `out`, whole or not at all: matrices of `coded` (short names) as they are, the others as `kind`.

    `name` is the model's in the file, the folder's by default. Raises DistillError for an architecture or tokenizer
    that is not exported, weights that are damaged, missing or of another shape, and a width that a format does not fit.
    """
    coded = coded or {}
    if kind not in ALONE:
        raise DistillError(f"no format {kind!r} without codes: {', '.join(ALONE)}, or apply a recipe first")
    config = config_of(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config["model_type"]].kind])
    add_shape(writer, config, name or folder.name)
    writer.add_file_type(FILE_TYPES[most(coded, kind)])
    add_tokenizer(writer, folder, config)
    add_weights(writer, folder, config, coded, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(out)
    return out


def most(coded: Mapping[str, Coded], kind: str) -> str:
    """The format of most of the bytes."""
    sizes: Counter[str] = Counter()
    for each in coded.values():
        sizes[each.format.name] += each.num_bytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else kind


def add_weights(
    writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any], coded: Mapping[str, Coded], kind: str
) -> None:
    """Every tensor, in the file's order."""
    architecture = ARCHITECTURES[config["model_type"]]
    names = gguf.get_tensor_name_map(architecture.kind, config["num_hidden_layers"])
    stretched = turns(config)
    if stretched is not None:
        writer.add_tensor("rope_freqs.weight", stretched)
    unknown = set(coded) - {name for name, shape in shapes(config).items() if len(shape) > 1}
    if unknown:
        raise DistillError(f"has codes for {', '.join(sorted(unknown))}, which are no matrices of it", file=str(folder))
    for each, weight in checked(folder, config):
        name = names.get_name(f"{'' if each.startswith('lm_head') else 'model.'}{each}", try_suffixes=(".weight",))
        rows = order(each, config)
        if name is None:
            raise DistillError(f"has the weight {each!r}, which llama.cpp has no place for", file=str(folder))
        if each in coded:
            add_coded(writer, name, coded[each], weight.shape, rows)
        elif weight.ndim == 1:
            writer.add_tensor(name, weight + np.float32(architecture.lift))
        else:
            add_weight(writer, name, weight if rows is None else weight[rows], kind)


def checked(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Floats]]:
    """The folder's weights by short name. Raises DistillError for one missing, strange, misshapen or NaN."""
    missing = shapes(config)
    for full, weight in read(folder):
        name = full.removeprefix("model.")
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if name.endswith("rotary_emb.inv_freq"):
            continue
        if name not in missing:
            what = f"has the weight {full!r}, which no {config['model_type']} of its config.json has"
            raise DistillError(what, file=str(folder))
        shape = missing.pop(name)
        if weight.shape != shape:
            raise DistillError(f"{full} is {weight.shape}, and config.json makes it {shape}", file=str(folder))
        if not np.isfinite(weight).all():
            raise DistillError(f"{full} has weights that are NaN or infinite", file=str(folder))
        yield name, weight
    if missing:
        raise DistillError(f"lacks {len(missing)} weights, {next(iter(missing))} among them", file=str(folder))


def add_coded(
    writer: gguf.GGUFWriter,
    name: str,
    coded: Coded,
    shape: tuple[int, ...],
    rows: Any,  # noqa: ANN401 - an array or None
) -> None:
    """A matrix as its codes and scales. Raises DistillError where its shape is another."""
    if tuple(coded.codes.shape) != shape:
        raise DistillError(f"{name} is {shape}, and its codes are {tuple(coded.codes.shape)}")
    held = packed(coded)
    kind = gguf.GGMLQuantizationType[coded.format.name]
    writer.add_tensor(name, np.ascontiguousarray(held if rows is None else held[rows]), raw_dtype=kind)


def add_weight(writer: gguf.GGUFWriter, name: str, weight: Floats, kind: str) -> None:
    """A matrix, rounded. Raises DistillError where its width or its numbers do not fit the format."""
    if kind == "F32":
        writer.add_tensor(name, np.ascontiguousarray(weight))
        return
    wanted = gguf.GGMLQuantizationType[kind]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    if weight.shape[-1] % block:
        raise DistillError(
            f"{name} is {weight.shape[-1]} wide, and {kind} takes {block} at a time: choose another width"
        )
    if kind != "BF16" and np.abs(weight).max(initial=0.0) > LARGEST_HALF:
        raise DistillError(f"{name} has weights beyond {LARGEST_HALF:.0f}, which 16 bits cannot hold: take BF16 or F32")
    if kind == "F16":
        writer.add_tensor(name, weight.astype(np.float16))
    else:
        writer.add_tensor(name, quantize(np.ascontiguousarray(weight), wanted), raw_dtype=wanted)
