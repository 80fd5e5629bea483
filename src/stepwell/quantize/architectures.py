"""What llama.cpp wants to know of each architecture beyond its weights: a table, and the few sums behind it.

A folder's config.json is read here, once: with what it leaves out filled in, and refused where llama.cpp would compute
something else than transformers does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.errors import DistillError
from stepwell.quantize.weights import told

Config = Mapping[str, Any]
Shape = tuple[int, ...]
TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
FOUR_NORMS = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


class Architecture(Struct, frozen=True):
    """One row of the table."""

    kind: gguf.MODEL_ARCH
    norms: tuple[str, ...] = TWO_NORMS
    head_norms: bool = False
    """Whether queries and keys are normalised, head by head."""
    lift: float = 0.0
    """What a norm's weight is short of."""
    turned: bool = False
    """Whether llama.cpp turns neighbours where Hugging Face turns halves: rows of queries and keys change places."""
    activation: str = "silu"
    adds: Callable[[gguf.GGUFWriter, Config], None] = lambda *_: None
    """Writes the keys that only this architecture has."""
    usual: tuple[tuple[str, Any], ...] = ()
    """What its config.json may leave out."""


# --- keys of single architectures


def granite(writer: gguf.GGUFWriter, config: Config) -> None:
    """Granite's multipliers."""
    writer.add_attention_scale(config["attention_multiplier"])
    writer.add_embedding_scale(config["embedding_multiplier"])
    writer.add_residual_scale(config["residual_multiplier"])
    writer.add_logit_scale(config["logits_scaling"])


def gemma2(writer: gguf.GGUFWriter, config: Config) -> None:
    """Soft caps and the window of every second layer."""
    writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])


def gemma3(writer: gguf.GGUFWriter, config: Config) -> None:
    """Windows by layer, whose positions turn by a base of their own."""
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern(windows(config))
    writer.add_rope_freq_base_swa(config["rope_parameters"]["sliding_attention"]["rope_theta"])


def windows(config: Config) -> list[bool]:
    """Which layers see a window only."""
    return [each == "sliding_attention" for each in config["layer_types"]]


TIED = (("tie_word_embeddings", True), ("rms_norm_eps", 1e-6))
ARCHITECTURES = {
    "llama": Architecture(gguf.MODEL_ARCH.LLAMA, turned=True),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3, head_norms=True, usual=(("head_dim", 128),)),
    "granite": Architecture(gguf.MODEL_ARCH.GRANITE, turned=True, adds=granite),
    "gemma": Architecture(gguf.MODEL_ARCH.GEMMA, lift=1.0, activation="gelu_pytorch_tanh", usual=TIED),
    "gemma2": Architecture(
        gguf.MODEL_ARCH.GEMMA2, FOUR_NORMS, lift=1.0, activation="gelu_pytorch_tanh", adds=gemma2, usual=TIED
    ),
    "gemma3_text": Architecture(
        gguf.MODEL_ARCH.GEMMA3,
        FOUR_NORMS,
        head_norms=True,
        lift=1.0,
        activation="gelu_pytorch_tanh",
        adds=gemma3,
        usual=TIED,
    ),
}

# --- config.json


def config_of(folder: Path) -> dict[str, Any]:
    """config.json with what it leaves out filled in. Raises DistillError for what llama.cpp would compute otherwise."""
    config = told(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise DistillError(f"is a {kind!r} model; those that are exported are {known}", file=str(folder))
    given = {key: value for key, value in config.items() if value is not None}
    try:
        usual = {
            "num_key_value_heads": config["num_attention_heads"],
            "head_dim": config["hidden_size"] // config["num_attention_heads"],
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "rope_parameters": rope_of(config),
        }
        whole = {**usual, **dict(ARCHITECTURES[kind].usual), **given, "rope_parameters": rope_of(config)}
        complaint = wrong(whole, ARCHITECTURES[kind])
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise DistillError(f"config.json lacks or misstates {error}", file=str(folder)) from error
    if complaint:
        raise DistillError(complaint, file=str(folder))
    return whole


def rope_of(config: Config) -> dict[str, Any]:
    """How positions turn, in the form that transformers 5 writes."""
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = config.get("rope_theta", 10_000.0)
    if "full_attention" in told:
        return dict(told)
    whole = {"rope_theta": base, **told, "rope_type": told.get("rope_type", told.get("type", "default"))}
    if config["model_type"] != "gemma3_text":
        return whole
    local = {"rope_type": "default", "rope_theta": config.get("rope_local_base_freq", 10_000.0)}
    return {"full_attention": whole | {"rope_theta": config.get("rope_theta", 1e6)}, "sliding_attention": local}


def rope(config: Config) -> dict[str, Any]:
    """How positions turn where a layer sees everything."""
    told = config["rope_parameters"]
    return dict(told.get("full_attention", told))


def wrong(config: Config, architecture: Architecture) -> str:
    """What llama.cpp would compute otherwise; empty where there is nothing."""
    activation = config.get("hidden_activation") or config.get("hidden_act") or architecture.activation
    scalar, head = config.get("query_pre_attn_scalar"), config["head_dim"]
    every_second = [at % 2 == 0 for at in range(config["num_hidden_layers"])]
    gemma2 = architecture.kind == gguf.MODEL_ARCH.GEMMA2
    own_head = gguf.MODEL_TENSOR.OUTPUT in gguf.MODEL_TENSORS[architecture.kind]
    said = {
        f"has scaled positions of the kind {rope(config)['rope_type']!r}; only linear's and Llama 3's are exported": (
            rope(config)["rope_type"] not in {"default", "linear", "llama3"}
        ),
        f"has the activation {activation!r}; llama.cpp has {architecture.activation!r} there": (
            activation != architecture.activation
        ),
        f"divides attention by the root of {scalar}; llama.cpp by that of the head's width, {head}": (
            scalar is not None and scalar != head
        ),
        "has other windows than llama.cpp, which has one in every second layer, from the first on": (
            gemma2 and "layer_types" in config and windows(config) != every_second
        ),
        "has a head of its own, and to llama.cpp this architecture's is the embedding": (
            not config["tie_word_embeddings"] and not own_head
        ),
        "has biases in its layers, which are not exported": bool(
            config.get("attention_bias") or config.get("mlp_bias")
        ),
        "has windows, which are not exported for it": bool(config.get("use_sliding_window")),
        "sees what comes after, too, which is not exported": bool(config.get("use_bidirectional_attention")),
    }
    return next((what for what, so in said.items() if so), "")


# --- weights


def shapes(config: Config) -> dict[str, Shape]:
    """Every weight of a model by its short name, with its shape."""
    architecture = ARCHITECTURES[config["model_type"]]
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    layer: dict[str, Shape] = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    layer |= dict.fromkeys(architecture.norms, (hidden,))
    if architecture.head_norms:
        layer |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), (head,))
    whole: dict[str, Shape] = {"embed_tokens.weight": (config["vocab_size"], hidden), "norm.weight": (hidden,)}
    for at in range(config["num_hidden_layers"]):
        whole |= {f"layers.{at}.{part}.weight": shape for part, shape in layer.items()}
    return whole if config["tie_word_embeddings"] else whole | {"lm_head.weight": whole["embed_tokens.weight"]}


def order(name: str, config: Config) -> NDArray[np.int64] | None:
    """Which of a weight's rows stands where in the file; None: they stay as they are."""
    part = name.split(".")[-2]
    if not ARCHITECTURES[config["model_type"]].turned or part not in {"q_proj", "k_proj"}:
        return None
    heads = config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
    rows = np.arange(heads * config["head_dim"]).reshape(heads, 2, config["head_dim"] // 2)
    return rows.swapaxes(1, 2).ravel()


def turns(config: Config) -> NDArray[np.float32] | None:
    """Llama 3's stretched positions: what each pair's frequency is divided by. None where nothing is stretched."""
    told = rope(config)
    if told["rope_type"] != "llama3":
        return None
    factor, low, high = told["factor"], told["low_freq_factor"], told["high_freq_factor"]
    waves = told["original_max_position_embeddings"] / (
        2 * math.pi * told["rope_theta"] ** (np.arange(0, config["head_dim"], 2) / config["head_dim"])
    )
    smooth = np.clip((waves - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), np.float32)


def add_shape(writer: gguf.GGUFWriter, config: Config, name: str) -> None:
    """Sizes of the model, and what else its architecture has."""
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope(config)["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    if rope(config)["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope(config)["factor"])
    writer.add_vocab_size(config["vocab_size"])
    ARCHITECTURES[config["model_type"]].adds(writer, config)
