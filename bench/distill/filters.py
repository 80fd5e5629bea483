"""What keeps training data clean: near duplicates a core-second, planted leaks that are found, rows with provenance.

Texts are E2E's. Near duplicates and leaks are planted, and what is found is checked by plain sets of words, apart from
the code that found it. datasketch, where it is installed, does the same in the same run.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

from stepwell.engines.answers import Answers, Budget
from stepwell.store import tables
from stepwell.synth import run
from stepwell.synth.generator import opened
from stepwell.synth.leaks import leaks
from stepwell.synth.minhash import twins
from stepwell.synth.recipe import load
from stepwell.synth.row import Row, lacks, read
from stepwell.synth.sift import Tools

WRITER = Path(__file__).parents[2] / "models" / "house-writer" / "house-writer.gguf"
THRESHOLD, WORDS, LEAK_WORDS = 0.8, 5, 13
NUM_HASHES = 128
Pair = tuple[str, str]


def measure(*, quick: bool) -> dict[str, float]:
    """The three figures; what stands beside them is printed."""
    return {
        "minhash_rows_per_core_s": duplicates(quick=quick),
        "leaks_found": leaks_found(quick=quick),
        "provenance_share": provenance_share(quick=quick),
    }


# --- E2E


def data() -> Path:
    """The folder of the E2E texts."""
    named = os.environ.get("STEPWELL_DATA")
    if not named:
        raise SystemExit(
            "set STEPWELL_DATA to a folder with e2e/ (E2E NLG Challenge: github.com/tuetschek/e2e-dataset)"
        )
    return Path(named) / "e2e"


def training() -> list[Pair]:
    """Facts and texts to learn from."""
    records = map(json.loads, (data() / "train.jsonl").read_text(encoding="utf-8").splitlines())
    return [(record["mr"], text) for record in records for text in record["refs"]]


def held_out() -> list[Pair]:
    """Facts and texts that judge."""
    pairs = []
    for name in ("devset.csv", "testset_w_refs.csv"):
        with (data() / name).open(encoding="utf-8", newline="") as file:
            pairs += [(row["mr"], row["ref"]) for row in csv.DictReader(file)]
    return pairs


# --- near duplicates


def duplicates(*, quick: bool) -> float:
    """Rows a core-second, the median of several runs."""
    chance = random.Random(1)
    texts = list(dict.fromkeys(text for _, text in training()))
    planted = plant_twins(texts, 500 if quick else 2000, chance)
    texts += [text for _, text in planted]
    places = range(len(texts) - len(planted), len(texts))
    speeds = []
    for _ in range(3 if quick else 7):
        start = process_time()
        found = twins(texts, threshold=THRESHOLD, n=WORDS)
        speeds.append(len(texts) / (process_time() - start))
    told = [(at, twin.of) for at, twin in found.items()]
    print(f"  near duplicates: {len(texts):,} texts, {len(planted):,} planted, {len(found):,} found")
    tell("stepwell", statistics.median(speeds), told, places, texts)
    peer(texts, places)
    return statistics.median(speeds)


def plant_twins(texts: Sequence[str], num: int, chance: random.Random) -> list[tuple[int, str]]:
    """Copies of long texts with a word or two of others, each at or above the threshold by plain sets."""
    long = [at for at, text in enumerate(texts) if len(plain(text)) > 24]
    planted: list[tuple[int, str]] = []
    while len(planted) < num:
        at = chance.choice(long)
        words = texts[at].split()
        for _ in range(chance.choice((0, 1, 1, 2))):
            words[chance.choice((0, -1, chance.randrange(len(words))))] = chance.choice(texts).split()[-1]
        text = " ".join(words).upper() if chance.random() < 0.1 else " ".join(words)
        if jaccard(text, texts[at]) >= THRESHOLD:
            planted.append((at, text))
    return planted


def plain(text: str) -> list[str]:
    """Words, by the plainest of means."""
    return re.findall(r"\w+", text.lower())


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """A text as the set of its words in a row."""
    words = plain(text)
    return frozenset(tuple(words[at : at + WORDS]) for at in range(max(1, len(words) - WORDS + 1)))


def jaccard(one: str, other: str) -> float:
    """The share of two texts' words in a row that is in both."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def tell(name: str, speed: float, told: Sequence[tuple[int, int]], places: Sequence[int], texts: Sequence[str]) -> None:
    """One line: how fast, how many of the planted ones, and how many of those found are what they are said to be."""
    found = {at for at, _ in told}
    right = sum(jaccard(texts[at], texts[of]) >= THRESHOLD for at, of in told)
    recall = sum(at in found for at in places) / len(places)
    precision = right / len(told) if told else 1.0
    print(f"    {name:<12} {speed:>9,.0f} rows a core-second, recall {recall:.4f}, precision {precision:.4f}")


def peer(texts: Sequence[str], places: Sequence[int]) -> None:
    """The same by datasketch: MinHash of as many hashes, its own LSH; a row that hits an earlier one dies."""
    try:
        from datasketch import MinHash, MinHashLSH  # noqa: PLC0415 - a peer, where it is installed
    except ImportError:
        print("    datasketch is not here (pip install datasketch)")
        return
    start = process_time()
    index: Any = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_HASHES)
    hit: dict[int, list[int]] = {}
    for at, text in enumerate(texts):
        sketch: Any = MinHash(num_perm=NUM_HASHES)
        sketch.update_batch([" ".join(shingle).encode() for shingle in shingles(text)])
        near = index.query(sketch)
        if near:
            hit[at] = near
        else:
            index.insert(at, sketch)
    speed = len(texts) / (process_time() - start)
    # it names candidates, not the likest of them: each is given the one that speaks most for it
    told = [(at, max(near, key=lambda of, at=at: jaccard(texts[at], texts[of]))) for at, near in hit.items()]
    tell("datasketch", speed, told, places, texts)


# --- leaks


def leaks_found(*, quick: bool) -> float:
    """The share of planted leaks that are found: 13 words of a held-out text, disguised, anywhere in a row."""
    chance = random.Random(2)
    held = held_out()
    rows = training()[:: 4 if quick else 1]
    natural = leaks(rows, held, n=LEAK_WORDS)
    clean = [row for at, row in enumerate(rows) if at not in natural]
    long = [words for _, text in held if len(words := plain(text)) >= LEAK_WORDS]
    places = sorted(chance.sample(range(len(clean)), 500 if quick else 4000))
    for at in places:
        clean[at] = planted(clean[at], chance.choice(long), chance)
    start = process_time()
    found = leaks(clean, held, n=LEAK_WORDS)
    spent_s = process_time() - start
    share = sum(at in found for at in places) / len(places)
    wrong = len(found.keys() - set(places))
    print(f"  leaks: {len(places):,} planted in {len(clean):,} rows, {share:.2%} found", end=", ")
    print(f"{wrong} others, {spent_s:.1f} CPU s")
    print(f"    of the data as it is {len(natural):,} of {len(rows):,} rows share {LEAK_WORDS} words with dev or test")
    return share


def planted(row: Pair, words: Sequence[str], chance: random.Random) -> Pair:
    """A row with 13 words of a held-out text in its prompt or completion."""
    start = chance.randrange(len(words) - LEAK_WORDS + 1)
    words = [word.title() if chance.random() < 0.3 else word for word in words[start : start + LEAK_WORDS]]
    disguised = chance.choice((" ", "  ", ", ", "\n")).join(words)
    prompt, completion = row
    if chance.random() < 0.2:
        return f"{prompt}\nNote: {disguised}.", completion
    before = completion.split()
    at = chance.randrange(len(before) + 1)
    return prompt, " ".join([*before[:at], disguised, *before[at:]])


# --- provenance

RECIPE = """
[synth]
licence = "CC BY-SA 4.0"
real_floor = 0.2
[synth.seeds]
paths = ["seeds.jsonl"]
licence = "CC BY-SA 4.0"
prompt = "mr"
completion = "refs"
rows = 300
[synth.slots.name]
parts = [["The "], ["Blue ", "Old ", "Green ", "Quiet "], ["Anchor", "Mill", "Heron", "Lamp", "Otter", "Bell"]]
[synth.slots.eatType]
choices = {{ pub = 1, restaurant = 2, "coffee shop" = 1 }}
[synth.slots.food]
choices = ["Italian", "French", "Indian"]
share = 0.8
[synth.slots.area]
choices = ["riverside", "city centre"]
share = 0.7
[synth.sampled]
rows = {rows}
[synth.recombined]
rows = {rows}
[synth.generator]
path = "{writer}"
max_tokens = 96
[synth.filters]
verify = "slots"
perplexity = [0.0, 0.999]
"""


def provenance_share(*, quick: bool) -> float:
    """The share of all rows of a real run, those that died included, that lack nothing of their provenance."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seeds.jsonl").write_bytes((data() / "train.jsonl").read_bytes())
        (folder / "recipe.toml").write_text(RECIPE.format(rows=60 if quick else 300, writer=WRITER), encoding="utf-8")
        recipe = load(folder / "recipe.toml")
        tools = Tools(lambda: opened(recipe, Answers(folder / "answers"), Budget(), lambda _done, _all, _usd: None))
        run.made(recipe, folder / "made", tools.open)
        done = run.sifted(recipe, folder / "made" / run.RAW, folder / "sifted", tools)
        rows = list(read(folder / "sifted" / run.ROWS))
        names = set(Row.__struct_fields__)
        dead = tables.read(folder / "sifted" / run.REJECTED)
        rows += [Row(**{key: value for key, value in each.items() if key in names}) for each in dead]
    whole = sum(not lacks(row) for row in rows)
    told = ", ".join(f"{each.filter} {each.died}" for each in done.funnel if each.died)
    print(
        f"  provenance: {whole:,} of {len(rows):,} rows of a run lack nothing; {len(done.rows):,} stay (died: {told})"
    )
    return whole / len(rows)


if __name__ == "__main__":
    print(json.dumps(measure(quick=False)))
