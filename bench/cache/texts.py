"""The two intent sets of the cache's benchmarks: texts, answers, and their vectors."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepwell.engines.embed import MiniLm

Vectors = NDArray[np.float32]

WORK = Path(".work/bench")


def banking() -> list[tuple[str, str]]:
    """Banking77: 13,083 texts, each with the intent that stands for its answer."""
    rows = []
    for name in ("train.csv", "test.csv"):
        with (folder() / "banking77" / name).open(newline="", encoding="utf-8") as file:
            rows += [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
    return rows


def clinc() -> list[tuple[str, str]]:
    """CLINC150: 23,700 texts; every text out of scope has an answer of its own."""
    told = json.loads((folder() / "clinc150" / "data_full.json").read_text())
    rows = [(text, intent) for part in ("train", "val", "test") for text, intent in told[part]]
    for part in ("oos_train", "oos_val", "oos_test"):
        rows += [(text, f"{part}-{number}") for number, (text, _) in enumerate(told[part])]
    return rows


SETS: Mapping[str, Callable[[], list[tuple[str, str]]]] = {"banking": banking, "clinc": clinc}


@cache
def vectors(name: str) -> Vectors:
    """Vectors of a set's texts, in its order, by the embedder that ships; kept in .work/ for the next run."""
    embedder = MiniLm(None, WORK)  # which makes the folder, too
    file = WORK / f"{name}-{embedder.name.replace('/', '-')}.npy"
    if not file.exists():
        made = np.concatenate([embedder.encode([text]) for text, _ in SETS[name]()])
        part = file.with_suffix(".part.npy")
        np.save(part, made)
        part.replace(file)
    found: Vectors = np.load(file, allow_pickle=False)
    return found


def folder() -> Path:
    """Where the data lies."""
    given = os.environ.get("STEPWELL_DATA")
    if not given:
        raise SystemExit("set STEPWELL_DATA to the folder with banking77/ and clinc150/: see its README")
    return Path(given)
