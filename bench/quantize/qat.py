"""What training does at 2 bits that no rounding afterwards does: `qat2_vs_gptq2` and `qat2_bleu_loss`.

Stated before the test set was read:

- The model is the house writer, every matrix in Q2_K, embedding and head included (2.6 bits a weight). Settings were
  chosen on E2E's dev set.
- Trained: the writer with its weights rounded in every step learns what the writer in 32 bits expects at each token of
  E2E's training texts (KL, nothing else). Which of its averaged weights are the best is decided on dev.
- GPTQ: our best for the same format, calibrated on texts of the same set.
- KL is to the writer in 32 bits, a token of the human texts of E2E's test set, by the embedded engine on both files.
- BLEU is of the engine's greedy texts for E2E's test set with all references, of the writer's 16-bit file less that of
  the trained file.

    STEPWELL_DATA=... python -m bench.quantize.qat
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from recipes.writer import data

from stepwell.distill import student, train
from stepwell.distill.data import Example
from stepwell.distill.plan import Plan
from stepwell.quantize import calibrate, divergence, fake
from stepwell.quantize.recipe import uniform

WRITER, KEPT = Path("models/house-writer"), Path("runs/bench-quantize-qat")
FORMAT = "Q2_K"
PLAN = Plan(
    steps=600,
    rate=5e-4,
    batch_tokens=2048,
    loss="fkl",
    alpha=1.0,
    decay=0.0,
    warm_steps=20,
    fall_share=0.9,
    average=0.99,
    save_every=50,
    measure_every=100,
    metric="-kl",
)
"""Chosen on dev."""
QUICK_STEPS = 8
NUM_DEV = 160


def learned(out: Path, plan: Plan) -> train.Trained:
    """The writer, trained to bear 2 bits; what is there is gone on with."""
    model, parent = student.load(WRITER), student.load(WRITER)
    texts = [Example(pair.mr, pair.text) for pair in data.clean(data.read("train"))]
    reference = divergence.Reference(parent, held(model, "dev", NUM_DEV))

    def dev(judged: student.Model) -> dict[str, float]:
        found = reference.of(judged)
        return {"kl": found.kl, "top1": found.top1}

    transform = fake.fake(uniform(FORMAT), fake.shapes_of(model))
    return train.train(plan, model, texts, out, teacher=parent, transform=transform, dev=dev)


def held(model: student.Model, part: str, num: int) -> list[calibrate.Tokens]:
    """Facts of a part of E2E, each with its first human text."""
    rows = list(data.read(part).items())
    some = rows[:: max(1, len(rows) // num)][:num]
    texts = [(model.prompt_ids(mr), model.text_ids(refs[0])) for mr, refs in some]
    return calibrate.laid(texts, pad=model.words.pad)
