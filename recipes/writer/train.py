"""Train the house writer: `python -m recipes.writer.train OUT`. Stops and resumes at any time; about an hour.

Cross-entropy on the text alone, AdamW, a rate that stays and then falls (WSD), an average of the weights (EMA);
checkpoint chosen by BLEU and slot errors on the dev set.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from recipes.writer import data, tokenizer
from recipes.writer.generate import greedy
from recipes.writer.model import Shape, Writer, num_parameters
from stepwell.quality import slots, text

STRANGE_EVERY = 4
"""Of every so many dev inputs one is asked again with invented names."""


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
    share_renamed: float = 0.6
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
    """The rows of one epoch in batches, the same for the same seed and epoch: a resumed run sees them again."""
    chance = random.Random(plan.seed * 1000 + epoch)
    rows = [
        (tokenizer.prompt_ids(words, group.mr), [tokenizer.text_ids(words, text) for text in group.texts])
        for group in data.epoch(data.grouped(pairs), chance, plan.share_renamed, tokenizer.pieces(words))
    ]
    order = data.in_batches([len(prompt) + sum(map(len, texts)) for prompt, texts in rows], plan.batch, chance)
    return [[rows[index] for index in part] for part in order]


def measured(model: Writer, words: tokenizer.Tokenizer, texts: dict[str, list[str]]) -> dict[str, float]:
    """BLEU and slot error rate of greedy answers, in percent; and slot errors with names nobody has seen."""
    mrs = list(texts)
    said = greedy(model, words, mrs)
    chance, pieces = random.Random(0), tokenizer.pieces(words)
    strange = [data.renamed(data.Group(mr, tuple(texts[mr])), chance, pieces).mr for mr in mrs[::STRANGE_EVERY]]
    told = greedy(model, words, strange)
    return {
        "bleu": round(text.bleu(said, [texts[mr] for mr in mrs]).score, 2),
        "ser": round(100 * slots.error_rate(zip(map(slots.facts_of, mrs), said, strict=True)), 2),
        "ser_invented": round(100 * slots.error_rate(zip(map(slots.facts_of, strange), told, strict=True)), 2),
    }


def averaged(average: dict[str, Tensor], model: Writer, keep: float) -> None:
    """Move the running average of the weights a little towards the model."""
    for name, weight in model.state_dict().items():
        average[name].lerp_(weight.float(), 1 - keep)


def better(new: dict[str, float], old: dict[str, float] | None) -> bool:
    """BLEU less slot errors, each percent of them a point: a wrong fact is worse than a clumsy word."""

    def worth(measure: dict[str, float]) -> float:
        return measure["bleu"] - measure["ser"] - measure.get("ser_invented", 100.0)

    return old is None or worth(new) > worth(old)


class Run:
    """A training run in a folder: model, optimizer, averaged weights, and how far it has come."""

    def __init__(self, out: Path, plan: Plan, shape: Shape) -> None:
        """Begin, or go on from the folder's last checkpoint."""
        torch.manual_seed(plan.seed)
        self.out, self.plan, self.shape = out, plan, shape
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.words = tokenizer.load(out)
        self.model = Writer(shape).to(self.device)
        self.optimizer = optimizer_of(self.model, plan)
        self.average = {name: weight.clone().float() for name, weight in self.model.state_dict().items()}
        self.best: dict[str, float] | None = None
        self.num_steps, self.seconds, self.began_s = 0, 0.0, time.time()
        if (out / "best.pt").exists() and not (out / "last.pt").exists():
            self.model.load_state_dict(torch.load(out / "best.pt", weights_only=True)["model"])
            self.average = {name: weight.clone().float() for name, weight in self.model.state_dict().items()}
        if (out / "last.pt").exists():
            held = torch.load(out / "last.pt", weights_only=True, map_location=self.device)
            self.model.load_state_dict(held["model"])
            self.optimizer.load_state_dict(held["optimizer"])
            self.average, self.best = held["average"], held["best"]
            self.num_steps, self.seconds = held["step"], held["seconds"]

    def learn(self, rows: list[Row]) -> float:
        """One step on one batch; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.plan, self.num_steps)
        self.model.train()
        loss = loss_of(self.model, packed(rows).to(self.device), self.plan)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.num_steps += 1
        averaged(self.average, self.model, min(self.plan.average, self.num_steps / (self.num_steps + 20)))
        return loss.item()

    def judge(self, dev: dict[str, list[str]]) -> dict[str, float]:
        """Measure the averaged weights on the dev set; keep them where they are the best so far."""
        judged = Writer(self.shape)
        judged.load_state_dict({name: weight.cpu() for name, weight in self.average.items()})
        scores = measured(judged.to(self.device), self.words, dev)
        if better(scores, self.best):
            self.best = scores
            torch.save({"model": judged.cpu().state_dict(), "shape": asdict(self.shape)}, self.out / "best.pt")
        return scores

    def save(self, **told: float) -> None:
        """Write the checkpoint, whole or not at all, and a line of the log."""
        spent_s = self.seconds + time.time() - self.began_s
        note = {"step": self.num_steps, **told, "minutes": round(spent_s / 60, 1)}
        print(json.dumps(note), flush=True)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")
        held = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average}
        more = {"best": self.best, "step": self.num_steps, "seconds": spent_s}
        torch.save({**held, **more}, self.out / "next.pt")
        (self.out / "next.pt").replace(self.out / "last.pt")


def train(out: Path, plan: Plan, shape: Shape, *, dev: dict[str, list[str]], pairs: list[data.Pair]) -> None:
    """Run the plan in the folder `out`, from its last checkpoint where there is one."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer.json").exists():
        tokenizer.trained(pairs, plan.seed).save(str(out / "tokenizer.json"))
    run = Run(out, plan, shape)
    print(f"{num_parameters(run.model) / 1e6:.2f} M parameters, {len(pairs)} pairs", flush=True)
    bar = tqdm(total=plan.steps, initial=run.num_steps, mininterval=5)
    epoch, before = 0, 0
    while run.num_steps < plan.steps:
        rows = batches(pairs, run.words, plan, epoch)
        for part in rows[max(0, run.num_steps - before) :][: plan.steps - run.num_steps]:
            loss = run.learn(part)
            bar.update()
            if run.num_steps % plan.save_every == 0 or run.num_steps == plan.steps:
                run.save(epoch=epoch, loss=round(loss, 3), **run.judge(dev))
        epoch, before = epoch + 1, before + len(rows)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--begin", type=Path, help="a run whose weights and tokenizer this one begins with")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--rate", type=float, default=Plan.rate)
    parser.add_argument("--renamed", type=float, default=Plan.share_renamed, help="share of texts with invented names")
    parser.add_argument("--threads", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pairs = data.clean(data.read("train"))
    if given.begin and not given.out.exists():
        shutil.copytree(given.begin, given.out, ignore=shutil.ignore_patterns("l*"))
    plan = Plan(steps=given.steps, rate=given.rate, share_renamed=given.renamed)
    train(given.out, plan, Shape(), dev=data.read("dev"), pairs=pairs)


if __name__ == "__main__":
    main()
