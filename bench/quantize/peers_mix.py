"""Which format llama.cpp's quantizer gives each matrix of a Llama: the mixes behind names such as Q4_K_S.

The rules are those of `llama_tensor_get_type` (src/llama-quant.cpp at ggml-org/llama.cpp 007dbbf, for models without
experts). `python -m bench.quantize.peers_check` compares them with llama.cpp's own `llama_model_quantize`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import gguf

QK = 256
"""Width of a block of a K-quant."""


@dataclass(frozen=True)
class Place:
    """Where a matrix lies, and in what model."""

    layer: int
    num_layers: int
    queries_per_key: int
    imatrix: bool
    """Whether importances are given."""


Where = Callable[[Place], bool]


def everywhere(_: Place) -> bool:
    """All layers."""
    return True


def spread(place: Place) -> bool:
    """The first and the last eighth, and every third layer between them."""
    eighth = place.num_layers // 8
    return place.layer < eighth or place.layer >= 7 * place.num_layers // 8 or (place.layer - eighth) % 3 == 2


def first(num: int) -> Where:
    """So many layers from the start."""
    return lambda place: place.layer < num


def first_part(parts: int) -> Where:
    """The first of so many parts."""
    return lambda place: place.layer < place.num_layers // parts


def grouped(place: Place) -> bool:
    """Many queries share a key: values are small, and more bits for them cost little."""
    return place.queries_per_key >= 4


def guarded(place: Place) -> bool:
    """The first eighth, with importances."""
    return place.imatrix and first_part(8)(place)


def unguided(place: Place) -> bool:
    """The first eighth, without importances."""
    return not place.imatrix and first_part(8)(place)


BASE = {
    "Q8_0": "Q8_0",
    "Q6_K": "Q6_K",
    "Q5_K_M": "Q5_K",
    "Q5_K_S": "Q5_K",
    "Q5_1": "Q5_1",
    "Q5_0": "Q5_0",
    "Q4_K_M": "Q4_K",
    "Q4_K_S": "Q4_K",
    "Q4_1": "Q4_1",
    "Q4_0": "Q4_0",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
    "Q3_K_L": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_S": "Q3_K",
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
}
"""What most matrices of a preset get."""
RULES: Mapping[str, Mapping[str, tuple[tuple[str, Where], ...]]] = {
    "Q5_K_M": {"attn_v": (("Q6_K", spread),), "ffn_down": (("Q6_K", spread),)},
    "Q5_0": {"ffn_down": (("Q5_1", guarded),)},
    "Q4_K_M": {"attn_v": (("Q6_K", spread),), "ffn_down": (("Q6_K", spread),)},
    "Q4_K_S": {"attn_v": (("Q5_K", first(4)),), "ffn_down": (("Q5_K", first_part(8)),)},
    "Q4_0": {"ffn_down": (("Q4_1", guarded),)},
    "IQ4_NL": {"attn_v": (("Q5_K", grouped),), "ffn_down": (("Q5_K", unguided),)},
    "IQ4_XS": {"attn_v": (("Q5_K", grouped),), "ffn_down": (("Q5_K", unguided),)},
    "Q3_K_L": {
        "attn_v": (("Q5_K", everywhere),),
        "ffn_down": (("Q5_K", everywhere),),
        "attn_output": (("Q5_K", everywhere),),
    },
    "Q3_K_M": {
        "attn_v": (("Q5_K", first(2)), ("Q4_K", everywhere)),
        "ffn_down": (("Q5_K", first_part(16)), ("Q4_K", everywhere)),
        "attn_output": (("Q4_K", everywhere),),
    },
    "Q2_K": {
        "attn_v": (("Q4_K", grouped), ("Q3_K", everywhere)),
        "ffn_down": (("Q3_K", everywhere),),
        "attn_output": (("Q3_K", everywhere),),
    },
    "Q2_K_S": {"attn_v": (("Q4_K", grouped),), "ffn_down": (("Q4_K", first_part(8)),)},
}
"""For a part of the layers: what it gets instead, and where; the first that holds counts."""
NARROWER = {"IQ4_XS": "IQ4_NL", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What a matrix gets whose rows are no multiple of 256."""


def mixed(preset: str, widths: Mapping[str, int], *, queries_per_key: int = 1, imatrix: bool = False) -> dict[str, str]:
    """The format of every matrix, by llama.cpp's names of them (`blk.0.attn_v.weight`); `widths` are of their rows."""
    num_layers = 1 + max((layer_of(name) for name in widths), default=-1)
    tied = "output.weight" not in widths
    formats = {}
    for name, width in widths.items():
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            wanted = for_output(BASE[preset], width)
        else:
            wanted = for_layer(preset, name, Place(layer_of(name), num_layers, queries_per_key, imatrix))
        formats[name] = fitting(wanted, width)
    return formats


def for_output(base: str, width: int) -> str:
    """The head, or the embedding that is also the head."""
    return "Q8_0" if base == "Q8_0" or width % block(base) else "Q6_K"


def for_layer(preset: str, name: str, place: Place) -> str:
    """Any other matrix."""
    part = name.removesuffix(".weight").rpartition(".")[2]
    rules: Iterable[tuple[str, Where]] = RULES.get(preset, {}).get(part, ())
    return next((format_ for format_, where in rules if where(place)), BASE[preset])


def fitting(format_: str, width: int) -> str:
    """The format itself, or what llama.cpp takes where rows are no multiple of its block."""
    if width % block(format_) == 0:
        return format_
    narrower = NARROWER.get(format_, "F16")
    return narrower if width % block(narrower) == 0 else "F16"


def block(format_: str) -> int:
    """Weights that are stored together."""
    return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format_]][0]


def layer_of(name: str) -> int:
    """The number in `blk.0.attn_v.weight`; -1 outside of the layers."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1
