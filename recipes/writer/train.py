"""Train the house writer: `python -m recipes.writer.train OUT`. Stops and resumes at any time; about an hour on three cores.

Cross-entropy on the text alone, AdamW, a rate that stays and then falls (WSD), an average of the weights (EMA);
checkpoint chosen by BLEU and slot errors on the dev set.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from recipes.writer import data, tokenizer
from recipes.writer.generate import greedy
from recipes.writer.model import Shape, Writer, num_parameters
from torch import Tensor
from tqdm import tqdm

from stepwell.quality import slots, text


@dataclass(frozen=True)
class Plan:
    """The settings of a run, chosen on the dev set."""

    steps: int = 8_000
    batch: int = 20
    rate: float = 2e-3
    warm_steps: int = 200
    fall_share: float = 0.5
    decay: float = 0.05
    dropout: float = 0.1
    smoothing: float = 0.05
    share_renamed: float = 0.3
    average: float = 0.999
    seed: int = 0
    save_every: int = 1000


def rate_at(plan: Plan, step: int) -> float:
    """Warm up, stay, and fall along a half cosine to a fiftieth."""
    if step < plan.warm_steps:
        return plan.rate * (step + 1) / plan.warm_steps
    start = plan.steps * (1 - plan.fall_share)
    if step < start:
        return plan.rate
    done = min(1.0, (step - start) / (plan.steps - start))
    return plan.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def optimizer_of(model: Writer, plan: Plan) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    wide = [weight for weight in model.parameters() if weight.dim() >= 2]
    flat = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": wide, "weight_decay": plan.decay}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)


class Batch(NamedTuple):
    """Groups as rows: a prompt and behind it several texts, none of which sees another."""

    ids: Tensor
    places: Tensor
    mask: Tensor
    sources: Tensor
    """Index (row x tokens, flat) of the hidden state that foretells each target."""
    targets: Tensor

    def to(self, device: str) -> Batch:
        """The same batch on a device."""
        return Batch(*(part.to(device) for part in self))


Row = tuple[list[int], list[list[int]]]
"""Ids of a prompt, and ids of each text."""


def packed(rows: list[Row]) -> Batch:
    """Lay rows side by side: the prompt is computed once for all its texts, which begin at the same position."""
    longest = max(len(prompt) + sum(map(len, texts)) - len(texts) for prompt, texts in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    places = torch.zeros(len(rows), longest, dtype=torch.long)
    part = torch.full((len(rows), longest), -1)
    sources, targets = [], []
    for at, (prompt, texts) in enumerate(rows):
        end = len(prompt)
        ids[at, :end], places[at, :end], part[at, :end] = torch.tensor(prompt), torch.arange(end), 0
        for number, said in enumerate(texts, 1):
            size = len(said) - 1
            ids[at, end : end + size] = torch.tensor(said[:-1])
            places[at, end : end + size] = torch.arange(len(prompt), len(prompt) + size)
            part[at, end : end + size] = number
            sources += [at * longest + len(prompt) - 1, *range(at * longest + end, at * longest + end + size)]
            targets += said
            end += size
    seen = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
    mask = seen & torch.ones(longest, longest, dtype=torch.bool).tril()
    return Batch(ids, places, mask[:, None], torch.tensor(sources), torch.tensor(targets))


def loss_of(model: Writer, batch: Batch, plan: Plan) -> Tensor:
    """Mean cross-entropy over the tokens of the texts."""
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=batch.ids.device.type == "cuda"):
        hidden = model(batch.ids, batch.places, batch.mask, plan.dropout if model.training else 0.0)
        logits = model.logits(hidden.flatten(0, 1)[batch.sources])
    return functional.cross_entropy(logits.float(), batch.targets, label_smoothing=plan.smoothing)


def batches(pairs: list[data.Pair], words: tokenizer.Tokenizer, plan: Plan, epoch: int) -> list[list[Row]]:
    """The rows of one epoch, in batches; the same for the same seed and epoch, so that a resumed run sees them again."""
    chance = random.Random(plan.seed * 1000 + epoch)
    rows = []
    for group in data.epoch(data.grouped(pairs), chance, plan.share_renamed):
        rows.append((tokenizer.prompt_ids(words, group.mr), [tokenizer.text_ids(words, text) for text in group.texts]))
    order = data.in_batches([len(prompt) + sum(map(len, texts)) for prompt, texts in rows], plan.batch, chance)
    return [[rows[index] for index in part] for part in order]


def measured(model: Writer, words: tokenizer.Tokenizer, texts: dict[str, list[str]]) -> dict[str, float]:
    """BLEU and slot error rate of greedy answers, in percent."""
    mrs = list(texts)
    said = greedy(model, words, mrs)
    bleu = text.bleu(said, [texts[mr] for mr in mrs])
    ser = slots.error_rate((slots.facts_of(mr), line) for mr, line in zip(mrs, said, strict=True))
    return {"bleu": round(bleu.score, 2), "ser": round(100 * ser, 2)}


def averaged(average: dict[str, Tensor], model: Writer, keep: float) -> None:
    """Move the running average of the weights a little towards the model."""
    for name, weight in model.state_dict().items():
        average[name].lerp_(weight.float(), 1 - keep)


def better(new: dict[str, float], old: dict[str, float] | None) -> bool:
    """BLEU less what slot errors above 2 % cost: a slot error is worse than a clumsy word."""
    worth = lambda measure: measure["bleu"] - max(0.0, measure["ser"] - 2.0)  # noqa: E731
    return old is None or worth(new) > worth(old)


def train(out: Path, plan: Plan, shape: Shape, *, dev: dict[str, list[str]], pairs: list[data.Pair]) -> None:
    """Run the plan in the folder `out`, from its last checkpoint where there is one."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (out / "tokenizer.json").exists():
        tokenizer.trained(pairs, plan.seed).save(str(out / "tokenizer.json"))
    words = tokenizer.load(out)
    model = Writer(shape).to(device)
    optimizer = optimizer_of(model, plan)
    average = {name: weight.clone().float() for name, weight in model.state_dict().items()}
    best: dict[str, float] | None = None
    step, seconds = 0, 0.0
    if (out / "last.pt").exists():
        held = torch.load(out / "last.pt", weights_only=True)
        model.load_state_dict(held["model"])
        optimizer.load_state_dict(held["optimizer"])
        average, best, step, seconds = held["average"], held["best"], held["step"], held["seconds"]
    print(f"{num_parameters(model) / 1e6:.2f} M parameters, {len(pairs)} pairs", flush=True)
    bar = tqdm(total=plan.steps, initial=step, mininterval=5)
    began = time.time()
    epoch, before = 0, 0
    while step < plan.steps:
        rows = batches(pairs, words, plan, epoch)
        for part in rows[max(0, step - before) :]:
            if step >= plan.steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate_at(plan, step)
            model.train()
            loss = loss_of(model, packed(part).to(device), plan)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            averaged(average, model, min(plan.average, step / (step + 20)))
            bar.update()
            if step % plan.save_every and step < plan.steps:
                continue
            judge = Writer(shape)
            judge.load_state_dict({name: weight.cpu() for name, weight in average.items()})
            scores = measured(judge.to(device), words, dev)
            if better(scores, best):
                best = scores
                torch.save({"model": judge.cpu().state_dict(), "shape": asdict(shape)}, out / "best.pt")
            spent = seconds + time.time() - began
            note = {
                "step": step,
                "epoch": epoch,
                "loss": round(loss.item(), 3),
                **scores,
                "minutes": round(spent / 60, 1),
            }
            print(json.dumps(note), flush=True)
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(note) + "\n")
            held = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            torch.save({**held, "best": best, "step": step, "seconds": spent}, out / "next.pt")
            (out / "next.pt").replace(out / "last.pt")
        epoch, before = epoch + 1, before + len(rows)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--threads", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pairs = data.clean(data.read("train"))
    train(given.out, Plan(steps=given.steps), Shape(), dev=data.read("dev"), pairs=pairs)


if __name__ == "__main__":
    main()
