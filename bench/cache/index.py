"""What a key weighs, how quickly a full index starts, and how often the nearest key is found.

100,000 keys: the vectors of Banking77 and CLINC150 (all-MiniLM-L6-v2) with noise of 0.02 a component, and their texts;
one answer for every two keys. They are written as the cache writes them, each with the row of its exact digest, into
the SQLite store; then fresh processes read them, until the last key is in its cell. Disk is the store; memory is what
the process has grown by since before it began to read. The same with a snapshot is printed, too, and usearch's HNSW
over the same codes beside our cells. Recall is against looking at every vector: in float32, and as the codes are.

    python -m bench.cache.index
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time, time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cache.texts import SETS, vectors
from stepwell.cache.rows import KeyRow, encode
from stepwell.index.cells import split
from stepwell.index.feed import Feed
from stepwell.index.flat import Flat
from stepwell.index.index import Index
from stepwell.index.rows import KEYS, KeyAdded, tag_of
from stepwell.index.vectors import packed, unpacked
from stepwell.store.sqlite import Sqlite

NUM_KEYS, NUM_FEW, NUM_QUESTIONS, NUM_STARTS = 100_000, 10_000, 500, 3
NOISE = 0.02
PARTITION = b"p" * 32
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Vectors = NDArray[np.float32]


def measure() -> dict[str, float]:
    """`bytes_per_key`, `warm_start_100k_s`; recall@1 and CPU of a search at 10,000 and 100,000 keys."""
    kept, asked = noisy(NUM_KEYS, 0), noisy(NUM_QUESTIONS, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(fill(folder, kept))
        disk_bytes = sum(file.stat().st_size for file in folder.iterdir())
        np.save(folder / "asked.npy", asked)
        starts = [started(folder) for _ in range(NUM_STARTS)]
        started(folder, "snapshot")
        again = started(folder, "snapshot")
        snapshot_bytes = (folder / "snapshot").stat().st_size
    memory_bytes, start_s, cpu_s = (median(starts, each) for each in ("memory_bytes", "start_s", "start_cpu_s"))
    nearest = starts[0]["found"]
    few = few_keys(kept[:NUM_FEW], asked)
    return {
        "bytes_per_key": (disk_bytes + memory_bytes) / NUM_KEYS,
        "disk_bytes_per_key": disk_bytes / NUM_KEYS,
        "memory_bytes_per_key": memory_bytes / NUM_KEYS,
        "warm_start_100k_s": start_s,
        "warm_start_100k_cpu_s": cpu_s,
        "snapshot_start_100k_s": again["start_s"],
        "snapshot_bytes_per_key": snapshot_bytes / NUM_KEYS,
        "search_10k_cpu_ms": few[0],
        "search_10k_recall": few[1],
        "search_100k_cpu_ms": median(starts, "cpu_ms"),
        "search_100k_recall_float32": same(nearest, nearest_of_all(kept, asked)),
        "search_100k_recall": same(nearest, nearest_of_all(coded(kept), coded(asked))),
        **hnsw(kept, asked, "hnsw_100k"),
        **real_texts(),
    }


def real_texts() -> dict[str, float]:
    """Every text of both sets, some as questions and the rest as keys: without noise, and harder."""
    real = np.concatenate([vectors(name) for name in SETS])
    real = real[np.random.default_rng(2).permutation(len(real))]
    asked, kept = real[:NUM_QUESTIONS], real[NUM_QUESTIONS:]
    index = index_of(kept)
    while isinstance(index.parts[0], Flat):
        index.grow()
    spent, found = search(index, asked)
    recall = same(found, nearest_of_all(coded(kept), coded(asked)))
    return {"search_real_cpu_ms": spent, "search_real_recall": recall, **hnsw(kept, asked, "hnsw_real")}


def median(told: list[dict[str, Any]], name: str) -> float:
    """The median of one figure."""
    return float(np.median([each[name] for each in told]))


def same(found: Any, wanted: NDArray[np.int64]) -> float:
    """Share of questions whose nearest key was found."""
    return float(np.mean(np.array(found) == wanted))


def noisy(count: int, seed: int) -> Vectors:
    """Vectors of real texts, moved a little so that there are as many as wanted."""
    chance, real = np.random.default_rng(seed), np.concatenate([vectors(name) for name in SETS])
    moved = real[chance.integers(0, len(real), count)]
    moved = moved + np.float32(NOISE) * chance.standard_normal(moved.shape, dtype=np.float32)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def coded(given: Vectors) -> Vectors:
    """What is left of vectors in an index."""
    return unpacked(np.stack([packed(each) for each in given]))


def nearest_of_all(kept: Vectors, asked: Vectors) -> NDArray[np.int64]:
    """Row of the nearest key of each question."""
    return np.array([int((kept @ each).argmax()) for each in asked])


async def fill(folder: Path, kept: Vectors) -> None:
    """Write keys as the cache does."""
    store = Sqlite(folder / "cache.db", limit_bytes=2**30, flush_ms=50)
    texts = [text for each in SETS.values() for text, _ in each()]
    embedder, expires_s = tag_of("all-MiniLM-L6-v2"), time() + 86_400
    for number, vector in enumerate(kept):
        exact, answer = sha256(b"%d" % number).digest(), sha256(b"a%d" % (number // 2)).digest()
        principal = sha256(b"p%d" % (number % 100)).digest()[:16]
        text = texts[number % len(texts)]
        row = KeyAdded(exact, PARTITION, answer, text, packed(vector).tobytes(), embedder, principal, expires_s)
        await store.append(KEYS, encode(row), expires_s)
        await store.put(b"k" + exact, encode(KeyRow(answer, PARTITION)), expires_s)
        if number % 1000 == 0:
            await asyncio.sleep(0.06)
    await store.close()


def started(folder: Path, snapshot: str = "") -> dict[str, Any]:
    """What a process of its own found when it started on what is in `folder`."""
    command = [sys.executable, "-m", "bench.cache.index", str(folder), snapshot]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


async def start(folder: Path, snapshot: str) -> dict[str, Any]:
    """Read the index until all of it is in cells, and ask it questions."""
    asked = np.load(folder / "asked.npy", allow_pickle=False)
    warm()
    store = Sqlite(folder / "cache.db", limit_bytes=2**30, flush_ms=50)
    before, begun_s, begun_cpu_s = resident_bytes(), perf_counter(), process_time()
    feed = Feed(store, folder / snapshot if snapshot else None)
    await feed.follow()
    while feed.index.growing:
        await asyncio.sleep(0.005)
        feed.index.grow()
    told: dict[str, Any] = {"start_s": perf_counter() - begun_s, "start_cpu_s": process_time() - begun_cpu_s}
    await asyncio.sleep(0.5)  # memory that was only needed to sort is given back by another thread
    told["memory_bytes"] = resident_bytes() - before
    told["cpu_ms"], told["found"] = search(feed.index, asked)
    await feed.save()
    await store.close()
    return told


def warm() -> None:
    """Load all libraries, and let them take what they take once a process."""
    cells = split(np.arange(4096), np.random.default_rng(0).integers(-127, 128, (4096, 384)).astype(np.int8))
    cells.nearest(cells.flats[0].matrix()[0], 16)


def search(index: Index, asked: Vectors) -> tuple[float, list[int]]:
    """CPU milliseconds of a question (median), and the row of the nearest key of each."""
    spent, found = [], []
    for each in asked:
        begun = process_time()
        numbers, _ = index.nearest(PARTITION, each)
        spent.append(process_time() - begun)
        found.append(index.keys.at(int(numbers[0])))
    return float(np.median(spent)) * 1e3, found


def few_keys(kept: Vectors, asked: Vectors) -> tuple[float, float]:
    """CPU milliseconds and recall@1 (float32) of a partition that is looked through whole."""
    spent, found = search(index_of(kept), asked)
    return spent, same(found, nearest_of_all(kept, asked))


def index_of(kept: Vectors) -> Index:
    """An index of some keys, all looked through until it is told to grow."""
    index, digest = Index(), bytes(32)
    codes = [packed(each).tobytes() for each in kept]
    index.add([(at, KeyAdded(digest, PARTITION, digest, "", each, "", b"", 4e9)) for at, each in enumerate(codes, 1)])
    return index


def hnsw(kept: Vectors, asked: Vectors, name: str) -> dict[str, float]:
    """The peer: usearch's graph over the same codes, with 24 links a node; left out where it is not installed."""
    if find_spec("usearch") is None:
        return {}
    from usearch.index import Index as Usearch  # noqa: PLC0415 - only here

    codes, questions = (np.stack([packed(each) for each in some]) for some in (kept, asked))
    graph = Usearch(ndim=384, metric="cos", dtype="i8", connectivity=12, expansion_add=128, expansion_search=64)
    before, begun_s = resident_bytes(), process_time()
    graph.add(np.arange(len(codes)), codes, threads=1)
    built_s, grown, spent, found = process_time() - begun_s, resident_bytes() - before, [], []
    for each in questions:
        begun_s = process_time()
        found.append(int(graph.search(each, 16, threads=1).keys[0]))
        spent.append(process_time() - begun_s)
    return {
        f"{name}_cpu_ms": float(np.median(spent)) * 1e3,
        f"{name}_recall": same(found, nearest_of_all(coded(kept), coded(asked))),
        f"{name}_build_cpu_s": built_s,
        f"{name}_memory_bytes_per_key": grown / len(kept),
    }


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


if __name__ == "__main__":
    print(json.dumps(asyncio.run(start(Path(sys.argv[1]), sys.argv[2])) if sys.argv[1:] else measure()))
