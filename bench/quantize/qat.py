"""What training does at 2 bits that no rounding afterwards does: `qat2_vs_gptq2` and `qat2_bleu_loss`.

Stated before the test set was read:

- The model is the house writer, every matrix in Q2_K, embedding and head included (2.6 bits a weight). Settings were
  chosen on E2E's dev set.
- Trained: the writer, beginning with GPTQ's weights and rounding them in every step, learns what the writer in 32 bits
  expects at each token of E2E's training texts (KL, nothing else). Which of its averaged weights are the best is
  decided on dev.
- GPTQ: our own, calibrated on texts of the same set; or rounding to nearest, should that be the better one.
- KL is to the writer in 32 bits, a token of the human texts of E2E's test set, by the embedded engine on both files.
- BLEU is of the engine's greedy texts for E2E's test set with all references, of the writer's 16-bit file less that of
  the trained file.

    STEPWELL_DATA=... python -m bench.quantize.qat
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from msgspec.structs import replace
from recipes.writer import data
from recipes.writer.train import LONGEST

from bench.quantize import engine_kl
from stepwell.campaigns.served import served
from stepwell.distill import student, train
from stepwell.distill.data import Example
from stepwell.distill.plan import Plan
from stepwell.quality import text
from stepwell.quantize import apply, calibrate, divergence, fake
from stepwell.quantize.engine import Text
from stepwell.quantize.engine_divergence import ratio as ratio_of
from stepwell.quantize.engine_divergence import spoken
from stepwell.quantize.export import to_gguf
from stepwell.quantize.network import swapped
from stepwell.quantize.recipe import Method, uniform

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
AGAIN = replace(PLAN, steps=400, rate=1.5e-4, fall_share=1.0, average=0.995, seed=1)
"""Once more from where that ended, more slowly: what a higher rate wins is lost again in its noise."""
QUICK_STEPS = 8
NUM_DEV, NUM_CALIBRATION = 160, 512
METHODS: tuple[Method, ...] = ("round", "gptq")
"""Of finding codes afterwards."""


def learned(out: Path, plans: Sequence[Plan]) -> list[train.Trained]:
    """The writer, trained to bear 2 bits, one plan after the other; what is there is gone on with."""
    parent, done = student.load(WRITER), list[train.Trained]()
    texts = [Example(pair.mr, pair.text) for pair in data.clean(data.read("train"))]
    reference = divergence.Reference(parent, held(parent, "dev", NUM_DEV))
    transform = fake.fake(uniform(FORMAT), fake.shapes_of(parent))

    def dev(judged: student.Model) -> dict[str, float]:
        found = reference.of(judged)
        return {"kl": found.kl, "top1": found.top1}

    for at, plan in enumerate(plans):
        model = student.load(done[-1].folder if done else begun(out, parent))
        run = out / f"again-{at}" if at else out
        done.append(train.train(plan, model, texts, run, teacher=parent, transform=transform, dev=dev))
    return done


def begun(out: Path, model: student.Model) -> Path:
    """The writer with GPTQ's weights: training begins where they lead, nearer to it than its own, rounded."""
    folder = out / "begun"
    if not folder.is_dir():
        codes = apply.applied(model, uniform(FORMAT), some(model))
        with swapped(model, {name: each.decoded() for name, each in codes.items()}):
            student.save(model, folder, {"from": student.fingerprint(WRITER)})
    return folder


def some(model: student.Model) -> list[calibrate.Tokens]:
    """Texts that codes are found from."""
    return calibrate.laid(texts_of(model, "train", NUM_CALIBRATION), pad=model.words.pad)


def held(model: student.Model, part: str, num: int) -> list[calibrate.Tokens]:
    """Facts of a part of E2E, each with its first human text."""
    return calibrate.laid(texts_of(model, part, num), pad=model.words.pad)


def texts_of(model: student.Model, part: str, num: int) -> list[Text]:
    """The same as token ids of prompts and completions."""
    rows = list(data.read(part).items())
    some = rows[:: max(1, len(rows) // num)][:num]
    return [(model.prompt_ids(mr), model.text_ids(refs[0])) for mr, refs in some]


def rounded(out: Path) -> dict[str, Path]:
    """Files of the writer whose codes were found afterwards: to nearest, and by every method of ours that looks."""
    model = student.load(WRITER)
    seen = some(model)
    found = calibrate.measured(model, seen)
    files = {}
    for method in METHODS:
        codes = apply.applied(model, uniform(FORMAT, method), seen, calibration=found)
        files[method] = to_gguf(WRITER, out / f"writer.{FORMAT}.{method}.gguf", "F16", coded=codes)
    return files


def bleu(file: Path, num: int) -> float:
    """Of the engine's greedy texts for test facts."""
    rows = list(data.read("test").items())[:num]
    said = served(file, [mr for mr, _ in rows], max_tokens=LONGEST, watch=lambda _: None)
    return text.bleu(said.texts, [refs for _, refs in rows]).score


def measure(*, quick: bool) -> dict[str, float]:
    """The figures, and a table of all methods."""
    torch.set_num_threads(1)
    num, out = (24, KEPT / "quick") if quick else (10_000, KEPT)
    quickly = replace(PLAN, steps=QUICK_STEPS, measure_every=QUICK_STEPS)
    done = learned(out, [quickly] if quick else [PLAN, AGAIN])
    folder, cpu_s = done[-1].folder, sum(each.cpu_s for each in done)
    codes = fake.coded(student.load(folder), uniform(FORMAT))
    files = {**rounded(out), "trained": to_gguf(folder, out / f"writer.{FORMAT}.qat.gguf", "F16", coded=codes)}
    model = student.load(WRITER)
    parent = spoken(model, texts_of(model, "test", num))
    found = {name: parent.diverges(file) for name, file in files.items()}
    print(engine_kl.told(found, {name: file.stat().st_size for name, file in files.items()}), flush=True)
    best = min(METHODS, key=lambda method: found[method].kl)
    ratio, low, high = ratio_of(found["trained"], found[best])
    print(f"trained / {best}: {ratio:.3f} [{low:.3f}, {high:.3f}], {cpu_s / 60:.1f} CPU-minutes of training")
    whole = to_gguf(WRITER, out / "writer.F16.gguf", "F16")
    scores = {
        name: bleu(file, num) for name, file in {"F16": whole, best: files[best], "trained": files["trained"]}.items()
    }
    print("BLEU " + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()), flush=True)
    return {
        "qat2_vs_gptq2": ratio,
        "qat2_bleu_loss": scores["F16"] - scores["trained"],
        "gptq2_bleu_loss": scores["F16"] - scores[best],
        "qat2_cpu_minutes": cpu_s / 60,
    }


if __name__ == "__main__":
    print(measure(quick="--quick" in sys.argv))
