"""The training loop: batches in, a student out. It may be killed at any time and goes on exactly where it was.

One step: lay a batch out, compute hidden states, tell the student its loss token by token (`losses.taught`), sum
gradients over processes, clip, AdamW, move the average of the weights.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

import stepwell
from stepwell.distill import batch, checkpoint, losses, parallel
from stepwell.distill.checkpoint import LOG, Progress
from stepwell.distill.data import Example, digest
from stepwell.distill.identity import identity_of, named
from stepwell.distill.picture import write_curve
from stepwell.distill.plan import DIVERGENCES, SPARSE, parsed
from stepwell.distill.plan import Plan as Plan  # noqa: PLC0414 - the section of this file
from stepwell.distill.sparse import SparseRows
from stepwell.distill.student import Model, fingerprint, native, save
from stepwell.distill.teaching import Lessons
from stepwell.distill.weights import Transform as Transform  # noqa: PLC0414 - named by callers
from stepwell.distill.weights import Weights, optimizers_of, rate_at
from stepwell.errors import DistillError

Examples = Sequence[Example] | Callable[[int], Sequence[Example]]
"""What to learn from: the same in every epoch, or what a function makes of the epoch's number."""
Dev = Callable[[Model], Mapping[str, float]]
"""Measures a model on what it does not learn from."""


SPARE_TOKENS, MANY = {"cpu": 128}, 8_192
"""A batch is cut where that leaves out so many tokens of padding: what another pass costs, by the kind of device."""
NUM_NAMED = 8
"""So many rows of a bad batch are named."""


class Told(Struct, frozen=True):
    """What `watch` hears after each step."""

    step: int
    loss: float
    rate: float
    tokens: int
    """Tokens of this step, prompts among them."""
    scores: Mapping[str, float] = {}


class Trained(Struct, frozen=True):
    """What a run gave."""

    folder: Path
    """Hugging Face folder of the best weights, or of the last where nothing was measured."""
    log: Path
    steps: int
    tokens: int
    cpu_s: float
    scores: Mapping[str, float]
    stopped: str
    """`steps` (all done) or `patience` (no better for too long)."""


def train(
    plan: Plan,
    student: Model,
    examples: Examples,
    out: Path,
    *,
    teacher: Model | None = None,
    sparse: SparseRows | None = None,
    transform: Transform | None = None,
    transform_from: int = 0,
    dev: Dev | None = None,
    watch: Callable[[Told], Any] | None = None,
) -> Trained:
    """Train until the plan is done or nothing gets better; begun before in `out`, go on. Raises DistillError.

    The steps before `transform_from` compute with plain weights; what is measured is always transformed.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = Run(
        plan,
        student,
        examples,
        out,
        teacher=teacher,
        sparse=sparse,
        transform=transform,
        transform_from=transform_from,
        dev=dev,
    )
    try:
        for rows in () if run.progress.done else run.batches():
            loss, tokens = run.step(rows)
            scores = run.pause()
            if watch is not None:
                watch(Told(run.progress.step, loss, run.rate, tokens, scores))
            if run.progress.done:
                break
        return run.result()
    finally:
        run.close()


class Run:
    """A run in a folder: the student's weights in both forms, the optimizer, the average, and how far it has come."""

    def __init__(
        self,
        plan: Plan,
        student: Model,
        examples: Examples,
        out: Path,
        *,
        teacher: Model | None,
        sparse: SparseRows | None,
        transform: Transform | None,
        transform_from: int,
        dev: Dev | None,
    ) -> None:
        """Begin, or go on from the folder's checkpoint."""
        self.plan, self.student, self.out, self.dev = plan, student, out, dev
        self.transform_from = transform_from
        self.rank, self.world = parallel.join()
        check_means(plan, teacher, sparse)
        dtype = precision(plan, student.device)
        self.lessons = Lessons(plan, student, out, dtype, teacher=teacher, sparse=sparse)
        self.data = "" if callable(examples) else digest(examples)
        self.examples = self.lessons.written(examples)
        student.module.dropout, student.module.recompute = plan.dropout, plan.recompute
        identity = identity_of(
            plan, student, self.data, teacher, self.lessons.sparse, transform=named(transform, transform_from)
        )
        self.weights = Weights(student.module, dtype, transform)
        muon = plan.optimizer == "muon"
        self.optimizers = optimizers_of(self.weights.masters, plan.rate, plan.decay, muon=muon)
        kept = self.weights.masters if plan.average else {}
        self.average = {name: weight.detach().clone() for name, weight in kept.items()}
        self.progress, self.rate = Progress(identity=identity), 0.0
        self.go_on(identity)
        self.groups: tuple[int, list[batch.Group]] = (-1, [])
        self.log = (out / LOG).open("ab") if self.rank == 0 else None

    def go_on(self, identity: str) -> None:
        """Take up the last checkpoint, where there is one. Raises DistillError where it is of another run."""
        found = checkpoint.read(self.out, self.student.device)
        if found is not None:
            self.progress, tensors = found
            if self.progress.identity != identity:
                what = "holds a run of another plan, student or data, or of another teacher: take another folder"
                raise DistillError(f"{what}, or delete this one", file=str(self.out))
            checkpoint.restore(tensors, self.weights.masters, self.average, self.optimizers)
            self.weights.follow()
            if self.progress.done == "steps" and self.progress.step < self.plan.steps:
                self.progress = msgspec.structs.replace(self.progress, done="")
        if self.rank == 0:
            checkpoint.cut_log(self.out, self.progress.step)
        parallel.wait(self.world)

    def batches(self) -> Iterator[list[batch.Row]]:
        """Batch after batch from where the run stands, the same for the same seed."""
        while self.progress.step < self.plan.steps:
            chance = random.Random(f"{self.plan.seed}/{self.progress.epoch}")  # noqa: S311 - an order, no secret
            together = self.plan.together if self.student.packs else 1
            rows = batch.rows_of(self.tokens_of(self.progress.epoch), together, chance)
            parts = batch.in_batches(rows, self.plan.batch_tokens, chance)
            yield from parts[self.progress.at : self.progress.at + self.plan.steps - self.progress.step]
            if self.progress.at >= len(parts):
                self.progress = msgspec.structs.replace(self.progress, epoch=self.progress.epoch + 1, at=0)

    def tokens_of(self, epoch: int) -> list[batch.Group]:
        """The token ids of an epoch: made once where every epoch is the same."""
        wanted = epoch if callable(self.examples) else 0
        if self.groups[0] != wanted:
            examples = self.examples(epoch) if callable(self.examples) else self.examples
            self.groups = (wanted, batch.groups_of(self.student, examples))
        return self.groups[1]

    def step(self, rows: list[batch.Row]) -> tuple[float, int]:
        """Learn one batch: its mean loss, and its tokens. Raises DistillError where that is no number."""
        begun_s = time.process_time()
        step = self.progress.step
        torch.manual_seed(hash((self.plan.seed, step, self.rank)) & (2**63 - 1))
        self.student.module.train()
        self.weights.begin(transforms=step >= self.transform_from)
        loss = self.gradients(rows, step)
        self.weights.collect()
        masters = list(self.weights.masters.values())
        parallel.add_up([loss, *(weight.grad for weight in masters)], self.world)
        norm = torch.nn.utils.clip_grad_norm_(masters, self.plan.clip)
        self.check(loss.item(), float(norm), rows)
        self.rate = rate_at(
            step,
            steps=self.plan.steps,
            rate=self.plan.rate,
            warm_steps=self.plan.warm_steps,
            fall_share=self.plan.fall_share,
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.weights.follow()
        self.move_average(step)
        tokens = sum(row.num_tokens for row in rows)
        self.note({"step": step + 1, "loss": loss.item(), "rate": self.rate, "tokens": tokens})
        self.progress = msgspec.structs.replace(
            self.progress,
            step=step + 1,
            at=self.progress.at + 1,
            tokens=self.progress.tokens + tokens,
            cpu_s=self.progress.cpu_s + time.process_time() - begun_s,
        )
        return loss.item(), tokens

    def gradients(self, rows: list[batch.Row], step: int) -> Tensor:
        """Gradients of this process's rows, and their part of the mean loss."""
        own = self.lessons.own_texts(step)
        mine = parallel.mine(rows, self.rank, self.world)
        if own:
            mine = self.lessons.written_by_student(mine, step * self.world + self.rank)
        weight = torch.tensor(batch.weight_of(mine if own else rows), device=self.student.device)
        if own:
            parallel.add_up([weight], self.world)
        total = torch.zeros((), device=self.student.device)
        for part in batch.of_like_length(mine, SPARE_TOKENS.get(self.student.device.type, MANY)) if mine else ():
            total += self.part_gradients(part, float(weight), own=own)
        return total

    def part_gradients(self, rows: list[batch.Row], weight: float, *, own: bool) -> Tensor:
        """Gradients of some rows, laid out side by side."""
        laid = batch.laid_out(rows, packs=self.student.packs, divisor=weight, pad=self.student.words.pad)
        laid = laid.to(self.student.device)
        teacher = self.lessons.teacher(rows, laid)
        hidden = self.student.hidden(laid.ids, laid.places, laid.mask).flatten(0, 1)[laid.sources]
        spec = self.lessons.spec(own=own)
        return losses.taught(self.student.logits, hidden, laid.targets, laid.weights, spec, teacher=teacher)

    def check(self, loss: float, norm: float, rows: list[batch.Row]) -> None:
        """Raise DistillError, naming the batch, where loss or gradients are no numbers; nothing was learned from it."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        texts = [text.id or row.asked[:60] for row in rows for text in row.texts]
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradients are not finite"
        last = (self.out / checkpoint.FILE).exists()
        kept = f"the last good checkpoint is {self.out / checkpoint.FILE}" if last else "no checkpoint was due yet"
        where = f"at step {self.progress.step + 1} (epoch {self.progress.epoch}, batch {self.progress.at})"
        told = f"{what} {where}; its rows: {texts[:NUM_NAMED]}{' ...' if len(texts) > NUM_NAMED else ''}; {kept}"
        self.note({"step": self.progress.step + 1, "stopped": told})
        raise DistillError(f"{told}; lower `rate`, or take these rows out")

    def move_average(self, step: int) -> None:
        """Move the running average of the weights a little; at first quickly."""
        keep = min(self.plan.average, (step + 1) / (step + 21))
        with torch.no_grad():
            for name, weight in self.average.items():
                weight.lerp_(self.weights.masters[name].detach(), 1 - keep)

    def pause(self) -> dict[str, float]:
        """After a step: measure and save where it is time."""
        step, plan = self.progress.step, self.plan
        last = step >= plan.steps
        scores: dict[str, float] = {}
        if self.dev is not None and (last or step % (plan.measure_every or plan.save_every) == 0):
            scores = self.measure(self.dev)
        if not self.progress.done and last:
            self.progress = msgspec.structs.replace(self.progress, done="steps")
        if self.progress.done or step % plan.save_every == 0 or scores:
            self.save()
        return scores

    def measure(self, dev: Dev) -> dict[str, float]:
        """Measure the averaged weights; keep them where they are the best so far."""
        step = self.progress.step
        with self.weights.shown(self.average or self.weights.masters, transformed=True):
            self.student.module.eval()
            scores = dict(dev(self.student))
        if self.plan.metric.lstrip("-") not in scores:
            known = ", ".join(scores)
            raise DistillError(f"`metric` = {self.plan.metric!r} is not measured on the dev set; there are: {known}")
        self.note({"step": step, **scores})
        if better(self.plan.metric, scores, self.progress.best):
            self.export(self.out / f"step-{step}", scores)
            self.progress = msgspec.structs.replace(self.progress, best=scores, best_step=step, since=0)
        else:
            since = self.progress.since + 1
            over = "patience" if self.plan.patience and since >= self.plan.patience else ""
            self.progress = msgspec.structs.replace(self.progress, since=since, done=over)
        return scores

    def export(self, folder: Path, scores: Mapping[str, float]) -> None:
        """Write the averaged weights as a Hugging Face folder."""
        if self.rank:
            return
        with self.weights.shown(self.average or self.weights.masters, transformed=False):
            save(self.student, folder, {**self.provenance(), "scores": dict(scores)})

    def provenance(self) -> dict[str, Any]:
        """Where these weights come from."""
        teacher = self.lessons.teacher_model
        return {
            "stepwell": stepwell.__version__,
            "torch": torch.__version__,
            "data_sha256": self.data,
            "student_from": fingerprint(self.student.folder),
            "teacher": None if teacher is None else fingerprint(teacher.folder),
            "plan": msgspec.to_builtins(self.plan),
            "step": self.progress.step,
            "tokens": self.progress.tokens,
            "cpu_s": round(self.progress.cpu_s, 1),
        }

    def save(self) -> None:
        """Write the checkpoint, then take away what it no longer names, and draw the curve."""
        if self.rank:
            return
        state = checkpoint.state_of(self.weights.masters, self.average, self.optimizers)
        checkpoint.write(self.out, self.progress, state)
        checkpoint.drop_older(self.out, self.progress.best_step)
        write_curve(self.out / LOG, self.out / "loss.svg")

    def note(self, entry: Mapping[str, Any]) -> None:
        """One line in the log, on the disk's way at once."""
        if self.log is not None:
            self.log.write(msgspec.json.encode(entry) + b"\n")
            self.log.flush()

    def result(self) -> Trained:
        """The best weights as `student`, and what the run took."""
        best, folder = self.out / f"step-{self.progress.best_step}", self.out / "student"
        if not self.progress.best_step:
            self.export(folder, {})
        elif self.rank == 0:
            checkpoint.replace_folder(best, folder)
        parallel.wait(self.world)
        return Trained(
            folder=folder,
            log=self.out / LOG,
            steps=self.progress.step,
            tokens=self.progress.tokens,
            cpu_s=self.progress.cpu_s,
            scores=self.progress.best,
            stopped=self.progress.done,
        )

    def close(self) -> None:
        """Leave the student in float32 with the last weights, however the run ended."""
        self.weights.leave()
        if self.log is not None:
            self.log.close()


def check_means(plan: Plan, teacher: Model | None, sparse: SparseRows | None) -> None:
    """Raise DistillError where the plan asks for a teacher that is not there."""
    name, _ = parsed(plan.loss)
    if name in {*DIVERGENCES, "seq"} and teacher is None:
        raise DistillError(f"`loss` = {plan.loss!r} needs a teacher whose weights are here: name its folder")
    if name in SPARSE and sparse is None:
        raise DistillError(f"`loss` = {plan.loss!r} needs the teacher's stored probabilities: run the teacher first")
    if plan.on_policy and (teacher is None or name not in DIVERGENCES):
        raise DistillError("`on_policy` needs a teacher whose weights are here, and a loss such as rkl or jsd:0.5")


def precision(plan: Plan, device: torch.device) -> torch.dtype:
    """bfloat16 where asked, or where the machine multiplies it natively."""
    if plan.precision != "auto":
        return torch.bfloat16 if plan.precision == "bf16" else torch.float32
    return native(device)


def better(metric: str, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
    """Whether new dev measurements beat old ones."""
    name = metric.lstrip("-")
    if name not in old:
        return True
    return new[name] < old[name] if metric.startswith("-") else new[name] > old[name]
