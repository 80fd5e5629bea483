"""llama.cpp's own quantizers as the peer: its compiled code, called where the embedded engine brings it along.

`preset` makes the GGUF file that `llama-quantize` makes, byte for byte in every tensor (`peers_check` shows it);
`quantized` is one matrix. Importances (an "imatrix") are mean squared inputs a column, as `llama-imatrix` gathers
them: of the layers' matrices, not of the embedding or the head.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from collections.abc import Mapping
from ctypes import c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from bench.quantize import peers_mix
from stepwell.quantize import export
from stepwell.quantize.wheel import Signatures, functions

Floats = NDArray[np.float32]
PRESETS = tuple(peers_mix.BASE)
FILE_TYPES = {name: gguf.LlamaFileType[f"MOSTLY_{name}"] for name in PRESETS}

GUIDED_ONLY = frozenset({"Q2_K_S"})
"""Presets that llama.cpp refuses to make without importances."""


SIGNATURES: Signatures = {
    "ggml_quantize_init": (None, (c_int,)),
    "ggml_quantize_chunk": (c_size_t, (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)),
}


@cache
def library() -> ctypes.CDLL:
    """llama.cpp's quantizers. Raises DistillError where the engine is not installed."""
    return functions(SIGNATURES)


def quantized(weight: Floats, format_: str, importance: Floats | None = None) -> NDArray[np.uint8]:
    """A matrix (rows, width) in one of llama.cpp's formats, (rows, bytes); importance (width,) weighs the errors."""
    kind = gguf.GGMLQuantizationType[format_]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    source = np.ascontiguousarray(weight, np.float32)
    rows, width = source.shape
    out = np.zeros((rows, width // block * block_bytes), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    library().ggml_quantize_init(kind)
    written = library().ggml_quantize_chunk(
        kind, source.ctypes.data, out.ctypes.data, 0, rows, width, None if weights is None else weights.ctypes.data
    )
    assert written == out.nbytes, f"{format_}: {written} bytes of {out.nbytes}"  # noqa: S101 - the layout is llama.cpp's
    return out


def dequantized(packed: NDArray[np.uint8], format_: str) -> Floats:
    """The numbers that packed rows stand for, by gguf's own reading of the format."""
    return gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[format_]).astype(np.float32)


def preset(
    folder: Path, name: str, out: Path, *, calibration: Mapping[str, Floats] | None = None, pure: bool = False
) -> Path:
    """The GGUF file of a Hugging Face folder that `llama-quantize` would make; `pure`: one format for all.

    `calibration`: mean squared inputs (width,) by short name, as `squares` takes them from a Calibration. Raises
    ValueError for a preset that llama.cpp makes with importances only.
    """
    if name in GUIDED_ONLY and not calibration:
        raise ValueError(f"llama.cpp makes {name} with importances only: pass calibration")
    with tempfile.TemporaryDirectory() as held:
        plain = gguf.GGUFReader(export.to_gguf(folder, Path(held) / "plain.gguf", "F32", name=folder.name))
        written(plain, name, out, imatrix=named(calibration or {}, plain), pure=pure)
    return out


def named(calibration: Mapping[str, Floats], plain: gguf.GGUFReader) -> dict[str, Floats]:
    """Importances by the file's names, of layers only."""
    arch = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[told_of(plain, "general.architecture")]
    names = gguf.get_tensor_name_map(arch, max(peers_mix.layer_of(each.name) for each in plain.tensors) + 1)
    own = {names.get_name(f"model.{name}", (".weight",)): np.asarray(each) for name, each in calibration.items()}
    return {name: each for name, each in own.items() if name and name.startswith("blk.")}


def squares(calibration: Any) -> dict[str, Floats]:
    """Mean squared inputs (width,) by short name, of a Calibration."""
    return {name: calibration.importance(name).float().numpy() for name in calibration.inputs}


def written(plain: gguf.GGUFReader, name: str, out: Path, *, imatrix: Mapping[str, Floats], pure: bool) -> None:
    """A file in 32 bits written again with its matrices quantized."""
    matrices = {each.name: int(each.shape[0]) for each in plain.tensors if len(each.shape) == 2}
    base = peers_mix.BASE[name]
    mix = {each: peers_mix.fitting(base, width) for each, width in matrices.items()}
    if not pure:
        mix = peers_mix.mixed(name, matrices, queries_per_key=queries_per_key(plain), imatrix=bool(imatrix))
    writer = gguf.GGUFWriter(out, told_of(plain, "general.architecture"))
    copy_fields(plain, writer)
    writer.add_file_type(FILE_TYPES[name])
    for tensor in plain.tensors:
        format_ = mix.get(tensor.name)
        if format_ in (None, "F16"):
            writer.add_tensor(tensor.name, np.array(tensor.data, np.float16 if format_ else np.float32))
        else:
            packed = quantized(np.array(tensor.data), format_, imatrix.get(tensor.name))
            writer.add_tensor(tensor.name, packed, raw_dtype=gguf.GGMLQuantizationType[format_])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def copy_fields(plain: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    """Sizes, tokenizer and chat template as they are."""
    for field in plain.fields.values():
        own = field.name.startswith("GGUF.") or field.name in {"general.architecture", "general.file_type"}
        if not own:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)


def told_of(plain: gguf.GGUFReader, key: str) -> Any:
    """What a file says under a key."""
    return plain.fields[key].contents()


def queries_per_key(plain: gguf.GGUFReader) -> int:
    """Heads of queries that share one of keys."""
    arch = told_of(plain, "general.architecture")
    heads, keys = (int(told_of(plain, f"{arch}.attention.head_count{end}")) for end in ("", "_kv"))
    return heads // keys


def matrix_bytes(file: Path) -> int:
    """Bytes of a file's matrices: no norms, tokenizer or alignment."""
    return sum(int(each.n_bytes) for each in gguf.GGUFReader(file).tensors if len(each.shape) > 1)


def names(file: Path) -> dict[str, str]:
    """The short name of every matrix of a file by the file's own name."""
    held = gguf.GGUFReader(file)
    arch = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[told_of(held, "general.architecture")]
    known = gguf.get_tensor_name_map(arch, max(peers_mix.layer_of(each.name) for each in held.tensors) + 1)
    short = {known.get_name(name, (".weight",)): name.removeprefix("model.") for name in full_names(held)}
    return {each.name: short[each.name] for each in held.tensors if each.name in short}


def full_names(held: gguf.GGUFReader) -> list[str]:
    """What Hugging Face calls a Llama's matrices."""
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    parts = (*parts, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    layers = sorted({peers_mix.layer_of(each.name) for each in held.tensors} - {-1})
    inner = [f"model.layers.{layer}.{part}.weight" for layer in layers for part in parts]
    return ["model.embed_tokens.weight", "lm_head.weight", *inner]


def formats(file: Path) -> dict[str, str]:
    """The format of every tensor of a GGUF file."""
    return {each.name: each.tensor_type.name for each in gguf.GGUFReader(file).tensors}


def told(file: Path) -> str:
    """One line: bytes and formats of a file."""
    kinds = formats(file)
    counts = {kind: sum(1 for each in kinds.values() if each == kind) for kind in sorted(set(kinds.values()))}
    return f"{file.name}: {file.stat().st_size:,} bytes, {json.dumps(counts)}"
