"""What stored probabilities cost and lose: the house writer on human texts of E2E's training set, settings that ship.

Bytes are those of the files as written, names of rows, footer and checksums included, for each token of a text (its
end too). The loss is the mean Kullback-Leibler divergence, in nats a token, of the whole distribution from what is
read back, the rest spread over all other tokens in proportion to the teacher's own chances: what rounding alone loses.

    STEPWELL_DATA=... .venv-train/bin/python -m bench.distill.sparse_bytes
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from msgspec import Struct

from stepwell.distill import sparse, topk
from stepwell.distill.data import Example
from stepwell.distill.sparse import SparseRows, TopK
from stepwell.distill.teach import TeacherSection

WRITER = Path(__file__).parents[2] / "models" / "house-writer"
NUM_TEXTS, NUM_QUICK_TEXTS = 4_000, 600
NUM_SAMPLED = 12
"""Tokens drawn a place: as many as random-sampling distillation needs (arXiv 2503.16870)."""


class Found(Struct, frozen=True):
    """Of one way to store."""

    bytes_per_token: float
    tokens_per_place: float
    mass: float
    loss: float


def examples(num: int) -> list[Example]:
    """The first texts of a training set in random order."""
    folder = os.environ.get("STEPWELL_DATA")
    if not folder:
        raise SystemExit("set STEPWELL_DATA to the folder with e2e/: see its README")
    lines = (Path(folder) / "e2e" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    pairs = [(row["mr"], ref) for row in rows for ref in row["refs"]]
    order = np.random.default_rng(0).permutation(len(pairs))
    return [Example(*pairs[at], id=f"{at:06}") for at in order[:num]]


def measured(num: int) -> tuple[Found, Found]:
    """The likeliest tokens with a rest, and drawn ones."""
    import torch  # noqa: PLC0415 - only where it is measured

    from stepwell.distill.student import load  # noqa: PLC0415

    torch.set_num_threads(1)
    model = load(WRITER)
    rows = examples(num)
    hashed, size = model.tokenizer_hash, model.tokenizer.get_vocab_size()
    section = TeacherSection(path=str(WRITER))

    def stored(folder: Path, kind: sparse.Kind) -> Found:
        def kept(ids: list[int], logp: topk.Floats, seed: int) -> TopK:
            if kind == "sampled":
                return topk.sampled(np.array(ids), logp, num=NUM_SAMPLED, seed=seed)
            return topk.top(np.array(ids), logp, cover=section.cover, most=section.most_k, least=section.least)

        file = folder / f"{kind}.sparse"
        told = expected_in_parts(model, rows)
        made = ((name, kept(ids, logp, seed)) for seed, (name, ids, logp) in enumerate(told))
        footer = sparse.write(file, made, tokenizer_hash=hashed, vocabulary=size, kind=kind)
        read = SparseRows.open(file, hashed)
        checked = islice(expected_in_parts(model, rows), NUM_QUICK_TEXTS)
        places = [lost(logp, read.get(name)) for name, _, logp in checked]
        tokens, mass, loss = np.concatenate(places).mean(axis=0)
        return Found(file.stat().st_size / footer.num_tokens, float(tokens), float(mass), float(loss))

    with tempfile.TemporaryDirectory() as folder:
        return stored(Path(folder), "topk"), stored(Path(folder), "sampled")


def expected_in_parts(model: object, rows: list[Example]) -> Iterator[tuple[str, list[int], topk.Floats]]:
    """What the teacher expects, as `distill/local.py` asks it."""
    from stepwell.distill.local import expected, parts  # noqa: PLC0415 - torch

    for part in parts(rows):
        yield from expected(model, part)  # type: ignore[arg-type]


def lost(logp: topk.Floats, kept: TopK | None) -> np.ndarray:
    """For each place: tokens kept, their mass, and the divergence from what was stored."""
    assert kept is not None  # noqa: S101 - every row was written
    used = np.isfinite(kept.logp)
    true = np.where(used, np.take_along_axis(logp, kept.ids.astype(np.int64), axis=1), -np.inf)
    mass = np.exp(true, dtype=np.float64).sum(axis=1)
    rest = np.maximum(1 - mass, 1e-12)
    inside = np.where(used, np.exp(true) * (np.where(used, true, 0) - np.where(used, kept.logp, 0)), 0).sum(axis=1)
    outside = rest * (np.log(rest) - np.maximum(kept.rest_logp, np.log(1e-12)))
    return np.stack([used.sum(axis=1), mass, inside + outside], axis=1)


def measure(*, quick: bool) -> dict[str, float]:
    """The issue's key, and what it buys."""
    topk, drawn = measured(NUM_QUICK_TEXTS if quick else NUM_TEXTS)
    return {
        "sparse_bytes_per_token": topk.bytes_per_token,
        "sparse_tokens_per_place": topk.tokens_per_place,
        "sparse_mass": topk.mass,
        "sparse_rounding_nats": topk.loss,
        "sampled_bytes_per_token": drawn.bytes_per_token,
        "sampled_tokens_per_place": drawn.tokens_per_place,
    }


if __name__ == "__main__":
    print(json.dumps(measure(quick=False)))
