"""Which rows the teacher is asked about, where not all can be paid for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.distill.teach import TeacherSection
from stepwell.distill.value import Array, Choice, Vectors, choose, estimate, values

Row = Mapping[str, Any]
BYTES_PER_TOKEN = 4
"""Of a text, about: a price only has to be right in comparison."""


def selected(section: TeacherSection, rows: Sequence[Row], work: Path) -> list[tuple[Row, float]]:
    """Distinct prompts by value, and some by chance; each with the probability with which it came to be chosen.

    A row may tell `frequency` (how often it is asked; else rows with the same prompt are counted) and `failure` (how
    likely the student fails at it; else 1). `work` is a folder for the embedder's converted weights.
    """
    distinct, frequency = counted(rows)
    failure = np.array([float(row.get("failure", 1.0)) for row in distinct])
    price = np.array([len(row["prompt"]) / BYTES_PER_TOKEN + section.max_tokens for row in distinct])
    value = values(frequency, failure, section.saving_usd, price)
    share = 1.0 if section.select == "random" else section.random_share
    vectors = embedded(distinct, work) if section.embed and share < 1 else None
    most = section.most or len(distinct)
    choice = choose(value, frequency, most, random_share=share, seed=section.seed, vectors=vectors)
    chosen = zip(choice.places, choice.probability, strict=True)
    return [(marked(distinct[place], float(chance)), float(chance)) for place, chance in chosen]


def marked(row: Row, chance: float) -> Row:
    """A row that says how it came to be chosen."""
    return {**row, "chosen_with": chance}


def counted(rows: Sequence[Row]) -> tuple[list[Row], Array]:
    """The first row of each prompt, and how often each is asked."""
    first: dict[str, Row] = {}
    frequency: dict[str, float] = {}
    for row in rows:
        first.setdefault(row["prompt"], row)
        frequency[row["prompt"]] = frequency.get(row["prompt"], 0.0) + float(row.get("frequency", 1.0))
    return list(first.values()), np.array([frequency[prompt] for prompt in first])


def embedded(rows: Sequence[Row], work: Path) -> Vectors:
    """Vectors of prompts. Raises ConfigError where the embedder's weights are not installed."""
    from stepwell.engines.embed import CHUNK, MiniLm  # noqa: PLC0415 - onnxruntime

    model = MiniLm(None, work)
    prompts = [row["prompt"] for row in rows]
    return np.concatenate([model.encode(prompts[at : at + CHUNK]) for at in range(0, len(prompts), CHUNK)])


def usable(
    rows: Sequence[Row], picked: Sequence[tuple[Row, float]], good: Sequence[bool]
) -> tuple[float, float, float]:
    """The share of all traffic whose prompt the teacher answers well enough, and its 95 % interval."""
    distinct, frequency = counted(rows)
    asked = dict(zip((row["prompt"] for row in distinct), frequency, strict=True))
    chance = np.array([share for _, share in picked])
    choice = Choice(np.arange(len(picked)), chance, int((chance == 1).sum()))
    found = estimate(
        np.array(good, np.float64),
        np.array([asked[row["prompt"]] for row, _ in picked]),
        choice,
        total=float(frequency.sum()),
    )
    return found.mean, *found.interval
