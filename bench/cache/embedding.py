"""What embedding one question costs, and whether int8 finds what float32 finds.

CPU time of one thread for Banking77's questions of 13 to 15 tokens, tokenizer and all; `embed_cpu_ms` is the whole
process's for `await embed([text])`, the hop to its thread and back among it. Peers in the same run: float32, ONNX
Runtime's usual dynamic int8 (one scale a matrix), every product in blocks of 8 bits (MatMulNBits), and
all-MiniLM-L6-v2 as GGUF Q8_0 in llama.cpp where gguf and xllamacpp are installed. Hits at equal error: every text once
in random order, served at the cosine at which 1, 2 or 5 % of all requests are answered wrongly.

    python -m bench.cache.embedding
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cache.texts import SETS, WORK
from stepwell.engines import minilm
from stepwell.engines.embed import MiniLm, session, tokenizer
from stepwell.engines.linear import Array, Linear, in_blocks, int8, plain
from stepwell.engines.onnx_file import CONTRIB, Graph

NUM_TIMED, NUM_ROUNDS = 60, 5
NUM_TEXTS, NUM_ORDERS = 3000, 3
ERRORS = (0.01, 0.02, 0.05)
THRESHOLDS = np.arange(0.66, 0.96, 0.01)

Vectors = NDArray[np.float32]
Embed = Callable[[str], Vectors]


def dynamic(graph: Graph, given: str, weight: Array, bias: Array, spread: Array | None) -> str:  # noqa: ARG001
    """ONNX Runtime's usual dynamic int8."""
    scale = np.float32(np.abs(weight).max() / 127)
    codes = np.rint(weight / scale).astype(np.int8).T
    arrays = (codes, np.array(scale), np.array(0, np.int8), bias)
    return graph.op("DynamicQuantizeMatMul", given, *map(graph.array, arrays), domain=CONTRIB)


def blocks(graph: Graph, given: str, weight: Array, bias: Array, spread: Array | None) -> str:  # noqa: ARG001
    """Every product in blocks."""
    return in_blocks(graph, given, weight, bias)


PEERS: Mapping[str, Linear] = {"fp32": plain, "int8": int8, "dynamic_int8": dynamic, "blocks_int8": blocks}


def measure() -> dict[str, float]:
    """`embed_cpu_ms`; for every precision its CPU milliseconds, cosine to float32, and hits at equal error."""
    peers = {name: onnx(linear) for name, linear in PEERS.items()} | llama()
    rows = {name: sample(name) for name in SETS}
    timed = of_usual_length([text for text, _ in rows["banking"]])
    found = {"embed_cpu_ms": whole_way(timed)}
    for name, spent in cpu_ms(peers, timed).items():
        found[f"embed_{name}_cpu_ms"] = spent
    for set_name, texts in rows.items():
        labels = np.unique([answer for _, answer in texts], return_inverse=True)[1]
        wanted = vectors_of(peers["fp32"], texts)
        for name, embed in peers.items():
            vectors = vectors_of(embed, texts)
            cosines = (vectors * wanted).sum(axis=1)
            hits = at_errors(curve(vectors, labels))
            found[f"{set_name}_{name}_cosine"] = float(cosines.mean())
            found[f"{set_name}_{name}_cosine_least"] = float(cosines.min())
            found |= {f"{set_name}_{name}_hits_d{error:.0%}".rstrip("%"): hit for error, hit in hits.items()}
            print(
                f"{set_name:8} {name:13} cosine {cosines.mean():.4f} (least {cosines.min():.4f}) hits", hits, flush=True
            )
    return found


def onnx(linear: Linear) -> Embed:
    """One precision of our own graph, one text at a time."""
    folder = minilm.packaged()
    run = session(minilm.model(minilm.read_weights(folder / "model.safetensors"), linear)).run
    cut = tokenizer(folder / "tokenizer.json", 128).encode
    return lambda text: run(None, {"ids": np.array([cut(text).ids], np.int64)})[0][0]


def llama() -> dict[str, Embed]:
    """The peer in llama.cpp, where it is installed."""
    if find_spec("gguf") is None or find_spec("xllamacpp") is None:
        return {}
    from bench.cache.llama import embed_with  # noqa: PLC0415 - only where both are there

    WORK.mkdir(parents=True, exist_ok=True)
    return {"gguf_q8_0": embed_with(WORK / "minilm.Q8_0.gguf")}


def sample(name: str) -> list[tuple[str, str]]:
    """Some rows of a set."""
    rows = SETS[name]()
    return [rows[at] for at in np.random.default_rng(1).permutation(len(rows))[:NUM_TEXTS]]


def of_usual_length(texts: Sequence[str]) -> list[str]:
    """Texts of 13 to 15 tokens."""
    cut = tokenizer(minilm.packaged() / "tokenizer.json", 128).encode
    return [text for text in texts if 13 <= len(cut(text).ids) <= 15][:NUM_TIMED]


def whole_way(texts: Sequence[str]) -> float:
    """CPU milliseconds of the process for one text, asked for as the cache asks (median)."""

    async def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            embedder, spent = MiniLm(None, Path(folder)), []
            for text in [*texts[:5], *texts * NUM_ROUNDS]:
                begun_s = process_time()
                await embedder.embed([text])
                spent.append(process_time() - begun_s)
            await embedder.close()
        return float(np.median(spent[5:])) * 1e3

    return asyncio.run(run())


def cpu_ms(peers: Mapping[str, Embed], texts: Sequence[str]) -> dict[str, float]:
    """CPU milliseconds of one text (median), the peers in turn so that a busy moment meets them all."""
    spent: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(NUM_ROUNDS):
        for name, embed in peers.items():
            for text in texts:
                begun_s = process_time()
                embed(text)
                spent[name].append(process_time() - begun_s)
    return {name: float(np.median(each)) * 1e3 for name, each in spent.items()}


def vectors_of(embed: Embed, rows: Sequence[tuple[str, str]]) -> Vectors:
    """Vectors of the texts of some rows."""
    return np.stack([embed(text) for text, _ in rows])


def curve(vectors: Vectors, labels: NDArray[Any]) -> NDArray[np.float64]:
    """Hits and wrong answers by request, for each threshold: a plain threshold cache, empty at the start."""
    cosines, count = vectors @ vectors.T, len(labels)
    orders = [np.random.default_rng(seed).permutation(count) for seed in range(NUM_ORDERS)]
    served = np.array([[served_at(cosines, labels, order, each) for order in orders] for each in THRESHOLDS])
    return served.mean(axis=1) / count


def served_at(cosines: Vectors, labels: NDArray[Any], order: NDArray[np.int64], threshold: float) -> tuple[int, int]:
    """How many requests were served, and how many of them wrongly."""
    kept, num_kept, hits, wrong = np.empty(len(order), np.int64), 0, 0, 0
    for at in order:
        near = cosines[at, kept[:num_kept]]
        best = int(near.argmax()) if num_kept else -1
        if num_kept and near[best] >= threshold:
            hits, wrong = hits + 1, wrong + int(labels[kept[best]] != labels[at])
        else:
            kept[num_kept], num_kept = at, num_kept + 1
    return hits, wrong


def at_errors(served: NDArray[np.float64]) -> dict[float, float]:
    """Hits where a stated share of requests is answered wrongly, between the measured thresholds on a line."""
    return {error: round(float(np.interp(error, served[::-1, 1], served[::-1, 0])), 4) for error in ERRORS}


if __name__ == "__main__":
    print(json.dumps(measure()))
