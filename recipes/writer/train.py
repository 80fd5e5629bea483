"""Train the house writer: `python -m recipes.writer.train OUT`. Stops and resumes at any time; about an hour.

Cross-entropy on the text alone, a rate that stays and then falls (WSD), an average of the weights (EMA); the texts of
an epoch are drawn anew, some about invented places; checkpoint chosen by BLEU and slot errors on the dev set.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from msgspec.structs import replace

from recipes.writer import data, tokenizer
from stepwell.distill import student
from stepwell.distill.bar import bar
from stepwell.distill.data import Example
from stepwell.distill.generate import generate
from stepwell.distill.llama import num_parameters
from stepwell.distill.plan import Plan, StudentSection
from stepwell.distill.train import Trained
from stepwell.distill.train import train as learn
from stepwell.quality import slots, text

STRANGE_EVERY = 4
"""Of every so many dev inputs one is asked again with invented names."""
LONGEST = 110
"""Tokens of an answer."""
SIZES = StudentSection(hidden=256, layers=4, heads=4, kv_heads=4, inner=768, context=512)
"""Widths are multiples of 256, so that every GGUF format fits."""
PLAN = Plan(
    steps=8_000,
    rate=2e-3,
    warm_steps=200,
    dropout=0.1,
    smoothing=0.05,
    average=0.999,
    together=data.TOGETHER,
    save_every=1_000,
    metric="worth",
)
"""Chosen on the dev set."""


def drawn(pairs: Sequence[data.Pair], pieces: Sequence[str], plan: Plan, epoch: int, renamed: float) -> list[Example]:
    """The examples of one epoch, the same for the same seed and epoch: a resumed run sees them again."""
    chance = random.Random(plan.seed * 1000 + epoch)
    groups = data.epoch(data.grouped(list(pairs)), chance, renamed, pieces)
    return [Example(group.mr, text) for group in groups for text in group.texts]


def measured(model: student.Model, texts: dict[str, list[str]]) -> dict[str, float]:
    """BLEU and slot error rates of greedy answers, in percent, one of them with names nobody has seen; and their worth.

    BLEU less slot errors, each percent of them a point: a wrong fact is worse than a clumsy word.
    """
    mrs = list(texts)
    said = greedy(model, mrs)
    chance, pieces = random.Random(0), tokenizer.pieces(model.tokenizer)
    strange = [data.renamed(data.Group(mr, tuple(texts[mr])), chance, pieces).mr for mr in mrs[::STRANGE_EVERY]]
    found = {
        "bleu": text.bleu(said, [texts[mr] for mr in mrs]).score,
        "ser": 100 * slots.error_rate(zip(map(slots.facts_of, mrs), said, strict=True)),
        "ser_invented": 100 * slots.error_rate(zip(map(slots.facts_of, strange), greedy(model, strange), strict=True)),
    }
    worth = found["bleu"] - found["ser"] - found["ser_invented"]
    return {name: round(value, 2) for name, value in {**found, "worth": worth}.items()}


def greedy(model: student.Model, mrs: Sequence[str]) -> list[str]:
    """The most likely text of each meaning representation."""
    return [texts[0] for texts in generate(model, mrs, max_tokens=LONGEST)]


def train(
    out: Path,
    plan: Plan,
    sizes: StudentSection,
    *,
    dev: dict[str, list[str]],
    pairs: Sequence[data.Pair],
    renamed: float = 0.6,
    begin: Path | None = None,
) -> Trained:
    """Train, or go on; `begin` is a run whose weights and tokenizer this one begins with."""
    words = out / "words"
    if begin is not None and not words.exists():
        shutil.copytree(begin / "words", words)
    elif not words.exists():
        tokenizer.write(tokenizer.trained(pairs, plan.seed), words, sizes.context)
    model = student.load(begin / "student") if begin else student.create(sizes, words, plan.seed)
    model.module.to("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{num_parameters(model.module) / 1e6:.2f} M parameters, {len(pairs)} pairs", flush=True)
    pieces = tokenizer.pieces(model.tokenizer)
    with bar(plan.steps) as watch:
        return learn(
            plan,
            model,
            lambda epoch: drawn(pairs, pieces, plan, epoch, renamed),
            out,
            dev=lambda judged: measured(judged, dev),
            watch=watch,
        )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--begin", type=Path, help="a run whose weights and tokenizer this one begins with")
    parser.add_argument("--steps", type=int, default=PLAN.steps)
    parser.add_argument("--rate", type=float, default=PLAN.rate)
    parser.add_argument("--renamed", type=float, default=0.6, help="share of texts with invented names")
    parser.add_argument("--threads", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train(
        given.out,
        replace(PLAN, steps=given.steps, rate=given.rate),
        SIZES,
        dev=data.read("dev"),
        pairs=data.clean(data.read("train")),
        renamed=given.renamed,
        begin=given.begin,
    )


if __name__ == "__main__":
    main()
