"""BLEU of texts against human ones, by sacrebleu (Post 2018), with the signature that makes a score comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct


class Bleu(Struct, frozen=True):
    """A corpus score from 0 to 100, and how it was counted."""

    score: float
    signature: str


def bleu(said: Sequence[str], references: Sequence[Sequence[str]]) -> Bleu:
    """Corpus BLEU, lower case, 13a tokens, all references of each text. Needs the extra `eval`."""
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - heavy, and only for measuring

    most = max((len(texts) for texts in references), default=0)
    columns: list[Any] = [[texts[at] if at < len(texts) else None for texts in references] for at in range(most)]
    metric = BLEU(lowercase=True, tokenize="13a")
    found = metric.corpus_score(list(said), columns)
    return Bleu(float(found.score), str(metric.get_signature()))


def counts(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
    """What each text adds to corpus BLEU as above: matches and totals of 1- to 4-grams, its and its reference's length.

    Needs the extra `eval`.
    """
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - heavy, and only for measuring

    metric = BLEU(lowercase=True, tokenize="13a", effective_order=True)
    found = [metric.sentence_score(text, list(others)) for text, others in zip(said, references, strict=True)]
    return [(*each.counts, *each.totals, each.sys_len, each.ref_len) for each in found]
