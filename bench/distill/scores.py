"""What texts for E2E's prompts are worth: BLEU over all references, slot errors by two checkers, resampled gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from recipes.writer import data

from stepwell.quality import slots, slots_apart, text

NUM_RESAMPLES = 2000
Counts = NDArray[np.int64]


class Scores(Struct, frozen=True):
    """What texts are worth, one line a prompt: BLEU's counts, and slot errors beside slots by two checkers."""

    counts: Counts
    wrong: NDArray[np.int64]
    wrong_apart: NDArray[np.int64]
    num_slots: NDArray[np.int64]

    @property
    def bleu(self) -> float:
        """Corpus BLEU, 0 to 100."""
        return float(bleu_of(self.counts.sum(0)[None])[0])

    @property
    def ser(self) -> float:
        """Slot error rate, a fraction."""
        return float(self.wrong.sum() / self.num_slots.sum())

    @property
    def ser_apart(self) -> float:
        """The same by the checker that was used for nothing else."""
        return float(self.wrong_apart.sum() / self.num_slots.sum())


@cache
def references(part: str) -> Mapping[str, list[str]]:
    """Human texts by prompt."""
    return data.read(part)


def scored(said: Sequence[str], part: str = "test") -> Scores:
    """Score one text for each prompt of a part."""
    refs = references(part)
    facts = [slots.facts_of(mr) for mr in refs]
    return Scores(
        np.array(text.counts(said, list(refs.values())), dtype=np.int64),
        np.array([len(slots.errors(each, one)) for each, one in zip(facts, said, strict=True)]),
        np.array([num_apart(each, one) for each, one in zip(facts, said, strict=True)]),
        np.array([len(each) for each in facts]),
    )


def num_apart(facts: Mapping[str, str], said: str) -> int:
    """Slot errors by the checker that was written apart."""
    found = slots_apart.errors(facts, said)
    return len(found.missing) + len(found.wrong) + len(found.added)


def bleu_of(sums: Counts) -> NDArray[np.float64]:
    """Corpus BLEU (Papineni et al. 2002) of sums [samples, 10]: matches and totals of 1- to 4-grams, lengths."""
    matches, totals, said, meant = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.log(matches / totals).mean(1)
        short = np.minimum(0.0, 1 - meant / said)
    return 100 * np.exp(precision + short)


def gaps(better: Sequence[Scores], worse: Sequence[Scores], seed: int = 0) -> NDArray[np.float64]:
    """Resampled differences of mean BLEU: both the prompts and the seeds are drawn anew (paired over both)."""
    chance = np.random.default_rng(seed)
    num, prompts = len(better), len(better[0].num_slots)
    found = np.empty(NUM_RESAMPLES)
    for at in range(NUM_RESAMPLES):
        which, rows = chance.integers(num, size=num), chance.integers(prompts, size=prompts)
        sums = [np.stack([each[i].counts[rows].sum(0) for i in which]) for each in (better, worse)]
        found[at] = bleu_of(sums[0]).mean() - bleu_of(sums[1]).mean()
    return found
