"""E2E as pairs of facts and texts: read, cleaned by the slot checker, weighted by agreement, names invented.

Human texts leave out or change about one slot in ten. A writer trained on them learns to do the same, so only
texts that say all their facts, and nothing else, are kept.
"""

from __future__ import annotations

import csv
import json
import math
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepwell.quality import slots

HOW_TO_GET = (
    "STEPWELL_DATA must name a folder with e2e/train.jsonl, e2e/devset.csv and e2e/testset_w_refs.csv "
    "(E2E NLG Challenge: github.com/tuetschek/e2e-dataset)"
)
WORDS = json.loads((Path(__file__).parent / "words.json").read_text(encoding="utf-8"))
"""Parts of invented names."""
SYLLABLES, KINDS, FIRSTS, SECONDS = (WORDS[name] for name in ("syllables", "kinds", "firsts", "seconds"))


@dataclass(frozen=True, slots=True)
class Pair:
    """One meaning representation and one text that says it; `weight` is how often training sees it, relatively."""

    mr: str
    text: str
    weight: float = 1.0


TOGETHER = 4
"""Texts of the same facts that are learned side by side, behind one prompt."""


@dataclass(frozen=True, slots=True)
class Group:
    """One meaning representation and some texts that say it."""

    mr: str
    texts: tuple[str, ...]


def folder() -> Path:
    """The E2E folder. Raises FileNotFoundError with the way to get it."""
    named = os.environ.get("STEPWELL_DATA", "")
    path = Path(named) / "e2e"
    if not named or not (path / "train.jsonl").exists():
        raise FileNotFoundError(HOW_TO_GET)
    return path


def read(part: str) -> dict[str, list[str]]:
    """Texts by meaning representation; `part` is train, dev or test."""
    if part == "train":
        rows = map(json.loads, (folder() / "train.jsonl").read_text(encoding="utf-8").splitlines())
        return {row["mr"]: row["refs"] for row in rows}
    name = {"dev": "devset.csv", "test": "testset_w_refs.csv"}[part]
    texts: dict[str, list[str]] = {}
    with (folder() / name).open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            texts.setdefault(row["mr"], []).append(row["ref"])
    return texts


def tidy(text: str) -> str:
    """One space between words, none at the ends, a full stop at the end, a capital at the start."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([.,;!?])", r"\1", text)
    return text if text[-1:] in ".!?" else text + "."


def clean(texts: dict[str, list[str]]) -> list[Pair]:
    """Pairs that say exactly their facts; a text that leaves some out is moved to the facts it does say."""
    kept: dict[str, list[str]] = {}
    for mr, refs in texts.items():
        facts = slots.facts_of(mr)
        for ref in refs:
            wrong = slots.errors(facts, ref)
            if not len(wrong):
                kept.setdefault(mr, []).append(tidy(ref))
            elif not wrong.wrong and not wrong.added and "name" not in wrong.missing and len(wrong.missing) <= 2:
                said = {name: value for name, value in facts.items() if name not in wrong.missing}
                if len(said) >= 3:
                    kept.setdefault(written(said), []).append(tidy(ref))
    return [pair for mr, refs in kept.items() for pair in weighted(mr, refs)]


def written(facts: dict[str, str]) -> str:
    """Write facts as the data set does."""
    return ", ".join(f"{name}[{value}]" for name, value in facts.items())


def weighted(mr: str, refs: list[str]) -> Iterator[Pair]:
    """Weigh each text by how much it agrees with the other texts of the same facts (shared 1- to 4-grams).

    What several people said in the same way is what is natural to say; the odd one out is often a slip.
    """
    grams = [counted(ref) for ref in refs]
    pooled: Counter[tuple[str, ...]] = Counter()
    for gram in grams:
        pooled.update(gram.keys())
    for ref, gram in zip(refs, grams, strict=True):
        shared = [min(1.0, (pooled[part] - 1) / 2) for part in gram]
        yield Pair(mr, ref, 0.25 + sum(shared) / max(1, len(shared)))


def counted(text: str) -> Counter[tuple[str, ...]]:
    """The 1- to 4-grams of a text."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return Counter(tuple(words[at : at + size]) for size in range(1, 5) for at in range(len(words) - size + 1))


def invented_word(chance: random.Random, pieces: Sequence[str]) -> str:
    """A word that no data set has. `pieces` of the tokenizer: whatever a strange name is cut into was copied before."""
    parts = pieces if pieces and chance.random() < 0.7 else SYLLABLES
    return "".join(chance.choice(parts) for _ in range(chance.randint(2, 3))).capitalize()


def invented_name(chance: random.Random, pieces: Sequence[str] = ()) -> str:
    """A name that no data set has."""
    made, other = invented_word(chance, pieces), invented_word(chance, pieces)
    known = f"{chance.choice(FIRSTS)} {chance.choice(SECONDS)}"
    kind = chance.choice(KINDS)
    return chance.choice(
        (
            made,
            f"The {made}",
            f"{made} {other}",
            f"The {made} {other}",
            f"{made} {kind}",
            f"The {made} {kind}",
            f"{kind} {made}",
            f"{made}'s",
            f"The {made} & {other}",
            f"The {known}",
            f"{known} {kind}",
            f"The {chance.choice(FIRSTS)} {made}",
            f"{made} {chance.choice(SECONDS)}",
        )
    )


def renamed(group: Group, chance: random.Random, pieces: Sequence[str] = ()) -> Group:
    """The same group about invented places: so the writer learns to copy names instead of knowing them."""
    mr, texts = group.mr, group.texts
    for attribute in ("name", "near"):
        found = re.search(rf"(?:^|, ){attribute}\[([^\]]*)\]", mr)
        if found is None:
            continue
        name = invented_name(chance, pieces)
        mr = mr.replace(f"{attribute}[{found[1]}]", f"{attribute}[{name}]")
        texts = tuple(text.replace(found[1], name) for text in texts if found[1] in text)
    return Group(mr, texts) if texts else group


def grouped(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """Pairs by meaning representation."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.mr, []).append(pair)
    return groups


def epoch(
    groups: dict[str, list[Pair]], chance: random.Random, share_renamed: float, pieces: Sequence[str] = ()
) -> list[Group]:
    """One epoch: of the texts of each MR three quarters, the agreeing ones more often, up to four in a group."""
    drawn = []
    for mr, pairs in groups.items():
        ranked = sorted(pairs, key=lambda pair: -(chance.random() ** (1 / pair.weight)))  # Efraimidis-Spirakis 2006
        chosen = [pair.text for pair in ranked[: math.ceil(0.75 * len(ranked))]]
        drawn += [Group(mr, tuple(chosen[at : at + TOGETHER])) for at in range(0, len(chosen), TOGETHER)]
    return [renamed(group, chance, pieces) if chance.random() < share_renamed else group for group in drawn]


def in_batches(lengths: list[int], size: int, chance: random.Random) -> Iterable[list[int]]:
    """Indices in batches of about equal length, so that little is padded; the batches come in any order."""
    order = list(range(len(lengths)))
    chance.shuffle(order)
    batches = []
    for start in range(0, len(order), size * 50):
        part = sorted(order[start : start + size * 50], key=lengths.__getitem__)
        batches += [part[at : at + size] for at in range(0, len(part), size)]
    chance.shuffle(batches)
    return batches
