"""The five data sets as texts by prompt, in four parts that share no prompt: learn, search, gate, sealed.

What is learned is of the data sets' own training rows (ViGGO, SGD: of all); the rest is parted by the hash of the
prompt, test rows among them, so that all that judge are alike. A label is a text: `card arrival`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from recipes.writer import data
from stepwell.synth.slots import facts_key

SALT = "again"
"""Parts the rows anew: what was read while the search's rule was chosen judges nothing that is reported."""
Texts = dict[str, list[str]]
"""By prompt, the texts that people wrote, or the label."""
NAMES = ("e2e", "viggo", "sgd", "banking77", "clinc150")
NEEDED = {
    "viggo": ("train.csv", "valid.csv", "test.csv"),
    "sgd": ("dev_system_turns.jsonl",),
    "banking77": ("train.csv", "test.csv"),
    "clinc150": ("data_full.json",),
}
HOW_TO_GET = {
    "viggo": "ViGGO: huggingface.co/datasets/GEM/viggo",
    "sgd": "system turns of the dev files of Schema-Guided Dialogue: github.com/google-research-datasets",
    "banking77": "Banking77: github.com/PolyAI-LDN/task-specific-datasets",
    "clinc150": "CLINC150: github.com/clinc/oos-eval",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """Texts by prompt."""

    learn: Texts
    search: Texts
    """A search chooses by these,"""
    gate: Texts
    """proves its choice by these,"""
    sealed: Texts
    """and is reported on by these, which it never sees."""


def parts(name: str) -> Parts:
    """A task's texts. Raises FileNotFoundError with the way to get them."""
    found = {"e2e": e2e, "viggo": viggo, "sgd": sgd, "banking77": banking77, "clinc150": clinc150}[name]()
    taken: set[str] = set()
    kept: list[Texts] = []
    for part in (found.sealed, found.gate, found.search, found.learn):
        kept.append({prompt: texts for prompt, texts in part.items() if key(prompt) not in taken})
        taken |= {key(prompt) for prompt in part}
    sealed, gate, search, learn = kept
    return Parts(learn, search, gate, sealed)


def key(prompt: str) -> str:
    """The same for prompts that ask the same: their facts in any order, or their words."""
    return facts_key(prompt) or " ".join(prompt.casefold().split())


def share(prompt: str, salt: str = "") -> float:
    """A number from 0 to 1 that belongs to a prompt."""
    return int.from_bytes(sha256(f"{SALT}{salt}{key(prompt)}".encode()).digest()[:8]) / 2**64


def by_hash(texts: Texts, *shares: float, salt: str = "") -> list[Texts]:
    """Texts in parts by the hash of their prompts: the first has what is left over by the others' shares."""
    cuts: list[Texts] = [{} for _ in (0, *shares)]
    for prompt, said in texts.items():
        place = share(prompt, salt)
        cuts[sum(place < sum(shares[at:]) for at in range(len(shares)))][prompt] = said
    return cuts


def folder(name: str) -> Path:
    """A data set's folder. Raises FileNotFoundError with the way to get it."""
    named = os.environ.get("STEPWELL_DATA", "")
    path = Path(named) / name
    lacking = [each for each in NEEDED[name] if not named or not (path / each).exists()]
    if lacking:
        what = " and ".join(f"{name}/{each}" for each in lacking)
        raise FileNotFoundError(f"STEPWELL_DATA must name a folder with {what} ({HOW_TO_GET[name]})")
    return path


def collected(pairs: Iterable[tuple[str, str]]) -> Texts:
    """Texts by prompt."""
    texts: Texts = {}
    for prompt, text in pairs:
        texts.setdefault(prompt, []).append(text)
    return texts


def e2e() -> Parts:
    """Facts of a restaurant in, a sentence out; learned from are texts that say all their facts."""
    learn, judging = by_hash(data.read("train"), 0.55)
    pairs = data.clean(learn)
    learned = collected((pair.mr, pair.text) for pair in pairs)
    judging |= data.read("dev") | data.read("test")
    return Parts(learned, *by_hash(judging, 0.45, 0.35, salt="judging"))


def viggo() -> Parts:
    """An act about a video game in, a sentence out."""
    rows = [row for part in ("train", "valid", "test") for row in table(folder("viggo") / f"{part}.csv")]
    return Parts(*by_hash(collected((row["mr"], data.tidy(row["ref"])) for row in rows), 0.14, 0.3, 0.26))


def sgd() -> Parts:
    """What an assistant is to do in, what it says out: `Restaurants: confirm(time[7 pm])`."""
    with (folder("sgd") / "dev_system_turns.jsonl").open(encoding="utf-8") as lines:
        turns = [json.loads(line) for line in lines]
    return Parts(*by_hash(collected((acted(turn), data.tidy(turn["utterance"])) for turn in turns), 0.15, 0.28, 0.25))


def acted(turn: Mapping[str, Any]) -> str:
    """A turn's acts, neighbours of one kind together."""
    said: list[tuple[str, list[str]]] = []
    for action in turn["actions"]:
        values = ", ".join(action["values"]).replace("[", "(").replace("]", ")")
        slot = f"{action['slot']}[{values}]" if values else action["slot"]
        if not said or said[-1][0] != action["act"]:
            said.append((action["act"], []))
        said[-1][1].extend([slot] if slot else [])
    acts = "; ".join(f"{act.lower()}({', '.join(slots)})" for act, slots in said)
    return f"{turn['service'].partition('_')[0]}: {acts}"


def banking77() -> Parts:
    """A customer's question in, one of 77 concerns out."""
    train, test = (dict(labelled(table(folder("banking77") / f"{part}.csv"))) for part in ("train", "test"))
    learn, judging = by_hash(train, 0.35)
    return Parts(learn, *by_hash(judging | test, 0.45, 0.4, salt="judging"))


def labelled(rows: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Banking77's questions, each with its label as a text."""
    for row in rows:
        yield " ".join(row["text"].split()), [row["category"].replace("_", " ").lower()]


def clinc150() -> Parts:
    """What somebody asks an assistant in, one of 150 intents out."""
    told = json.loads((folder("clinc150") / "data_full.json").read_text(encoding="utf-8"))
    train, val, test = (
        {text: [label.replace("_", " ")] for text, label in told[part]} for part in ("train", "val", "test")
    )
    learn, judging = by_hash(train, 0.2)
    return Parts(learn, *by_hash(judging | val | test, 0.42, 0.42, salt="judging"))


def table(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file."""
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)
