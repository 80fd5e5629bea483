"""What a file's answers are worth beside its parent's: by the task's scorer, paired by prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from msgspec import Struct

from stepwell.campaigns.quantize_task import BLEU, EXACT, Row
from stepwell.quality import paired, resample, slots, text
from stepwell.quality.judge import normal
from stepwell.quality.verify import bracketed, verifier
from stepwell.quantize.frontier import Difference
from stepwell.quantize.search import Margins, Plan

Texts = Sequence[str]
Right = Callable[[Row, str], bool]


class Settings(Struct, frozen=True):
    """How scores are compared."""

    scorer: str
    margins: Margins
    alpha: float
    resamples: int
    seed: int


def facts(rows: Sequence[Row]) -> bool:
    """Whether the slot checker of the restaurant schema knows all that the prompts ask for."""
    told = [bracketed(each.prompt) for each in rows]
    return all(each and each.keys() <= set(slots.ATTRIBUTES) for each in told)


def rightness(scorer: str) -> Right:
    """Whether an answer is right. Beside BLEU: whether it says the facts. Raises ConfigError."""
    if scorer == EXACT:
        return lambda row, said: normal(said) in {normal(each) for each in row.texts}
    check = verifier("slots" if scorer == BLEU else scorer, field="scorer")
    return lambda row, said: not check(row.prompt, said)


def compared(rows: Sequence[Row], said: Texts, parent: Texts, plan: Plan | Settings) -> tuple[Difference, ...]:
    """The difference in every metric that has a margin. Raises ConfigError for an unknown scorer."""
    found = []
    if plan.margins.bleu:
        found.append(by_bleu(rows, said, parent, plan))
    if plan.margins.right:
        found.append(by_share(rows, said, parent, plan))
    return tuple(found)


def by_bleu(rows: Sequence[Row], said: Texts, parent: Texts, plan: Plan | Settings) -> Difference:
    """BLEU of the whole, by the paired bootstrap."""
    count, margin = partial(text.counts, references=[each.texts for each in rows]), plan.margins.bleu
    first, second = (np.array(count(each), dtype=np.float64) for each in (said, parent))
    told = resample.compare(first, second, margin=margin, alpha=plan.alpha, resamples=plan.resamples, seed=plan.seed)
    return Difference("bleu", told.first, told.second, told.low, told.high, told.p, margin)


def by_share(rows: Sequence[Row], said: Texts, parent: Texts, plan: Plan | Settings) -> Difference:
    """Shares of right answers, by Tango's interval."""
    right, margin = rightness(plan.scorer), plan.margins.right
    one = [right(row, answer) for row, answer in zip(rows, said, strict=True)]
    other = [right(row, answer) for row, answer in zip(rows, parent, strict=True)]
    gains = sum(a and not b for a, b in zip(one, other, strict=True))
    losses = sum(b and not a for a, b in zip(one, other, strict=True))
    low, high = paired.interval(gains, losses, len(rows), plan.alpha)
    p = float(paired.p_value(gains, losses, len(rows), margin))
    return Difference("right", sum(one) / len(rows), sum(other) / len(rows), low, high, p, margin)
