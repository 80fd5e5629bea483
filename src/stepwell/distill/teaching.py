"""Where a batch's lesson comes from: the rows' own texts, the teacher's probabilities, or texts the student wrote."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from stepwell.distill import batch
from stepwell.distill.data import Example
from stepwell.distill.generate import generate, generate_ids
from stepwell.distill.losses import Sparse, Spec
from stepwell.distill.plan import DIVERGENCES, SPARSE, Plan, parsed
from stepwell.distill.sparse import SparseRows
from stepwell.distill.student import Model, fingerprint, same_words
from stepwell.errors import DistillError

HASH_CHARS = 12


class Lessons:
    """What the student is told: by whom, and by which loss."""

    def __init__(
        self,
        plan: Plan,
        student: Model,
        out: Path,
        dtype: torch.dtype,
        *,
        teacher: Model | None,
        sparse: SparseRows | None,
    ) -> None:
        self.plan, self.student, self.teacher_model, self.out = plan, student, teacher, out
        self.name, self.number = parsed(plan.loss)
        self.asks_texts = self.name == "seq"
        if self.name in DIVERGENCES and teacher is not None and not same_words(student, teacher):
            if plan.fallback != "text":
                raise DistillError(mismatch(student, teacher))
            self.asks_texts = True
        self.judge = None if self.asks_texts or self.name not in DIVERGENCES else quick(teacher, dtype)
        self.sparse = sparse if self.name in SPARSE else None
        self.same_prompts = teacher is not None and teacher.words.template == student.words.template
        self.prompts: dict[str, list[int]] = {}

    def written(
        self, examples: Sequence[Example] | Callable[[int], Sequence[Example]]
    ) -> Sequence[Example] | Callable[[int], Sequence[Example]]:
        """The examples, with the teacher's own texts where those are the lesson: asked once, kept in the folder.

        A prompt of several rows is learned once: with the id of the first, and the weight of the heaviest.
        """
        if not self.asks_texts or self.teacher_model is None:
            return examples
        if callable(examples):
            raise DistillError("a teacher writes texts for a fixed list of prompts, not for new ones in every epoch")
        first = {example.prompt: example for example in reversed(examples)}
        weights = dict(sorted((example.prompt, example.weight) for example in examples))
        prompts = list(dict.fromkeys(example.prompt for example in examples))
        asked = [prompts, self.plan.max_tokens, fingerprint(self.teacher_model.folder)]
        file = self.out / f"texts-{sha256(msgspec.json.encode(asked)).hexdigest()[:HASH_CHARS]}.jsonl"
        if not file.exists():
            texts = generate(self.teacher_model, prompts, max_tokens=self.plan.max_tokens)
            new = file.with_suffix(f".{os.getpid()}")  # processes side by side write the same
            new.write_bytes(b"".join(msgspec.json.encode([*pair]) + b"\n" for pair in zip(prompts, texts, strict=True)))
            new.replace(file)
        kept = [msgspec.json.decode(line, type=tuple[str, list[str]]) for line in file.read_bytes().splitlines()]
        return [
            first[prompt]._replace(completion=text, weight=weights[prompt])
            for prompt, texts in kept
            for text in texts
            if text
        ]

    def spec(self, *, own: bool) -> Spec:
        """The loss of a batch: on the student's own texts there is nothing but the teacher's judgement."""
        plan = self.plan
        return Spec(self.name, self.number, 1.0 if own else plan.alpha, plan.temperature, plan.smoothing)

    def own_texts(self, step: int) -> bool:
        """Whether this step's texts are the student's own."""
        if not self.plan.on_policy or self.judge is None:
            return False
        return random.Random(f"{self.plan.seed}/own/{step}").random() < self.plan.on_policy  # noqa: S311

    def written_by_student(self, rows: Sequence[batch.Row], seed: int) -> list[batch.Row]:
        """The same prompts with as many texts that the student draws now."""
        told: list[batch.Row] = list(rows)
        for num in sorted({len(row.texts) for row in rows}):
            places = [place for place, row in enumerate(rows) if len(row.texts) == num]
            written = generate_ids(
                self.student,
                [rows[place].prompt for place in places],
                num=num,
                temperature=self.plan.sample_temperature,
                max_tokens=self.plan.max_tokens,
                seed=seed * 1_000_003 + self.plan.seed,
                batch=max(128, num),
            )
            for place, texts in zip(places, written, strict=True):
                row = rows[place]
                told[place] = row._replace(texts=tuple(batch.Text(ids, 1.0, "") for ids in texts))
        self.student.module.train()
        return told

    def teacher(self, rows: Sequence[batch.Row], laid: batch.Batch) -> Callable[[slice], Tensor] | Sparse | None:
        """The teacher's logits for the targets of a batch, on demand; or what is stored of them."""
        if self.sparse is not None:
            return batch.stored(rows, self.sparse, self.student.device)
        judge = self.judge
        if judge is None:
            return None
        if not (self.same_prompts and judge.packs == self.student.packs):
            again = [self.for_teacher(row, text) for row in rows for text in row.texts]
            laid = batch.laid_out(again, packs=judge.packs, pad=judge.words.pad).to(judge.device)
        with torch.no_grad():
            hidden = judge.hidden(laid.ids, laid.places, laid.mask).flatten(0, 1)[laid.sources]

        def logits(where: slice) -> Tensor:
            with torch.no_grad():
                return judge.logits(hidden[where])

        return logits

    def for_teacher(self, row: batch.Row, text: batch.Text) -> batch.Row:
        """One text behind the prompt as the teacher's own chat template writes it."""
        if row.asked not in self.prompts and self.judge is not None:
            self.prompts[row.asked] = self.judge.prompt_ids(row.asked)
        return batch.Row(self.prompts[row.asked], (text,), row.asked)


def quick(teacher: Model | None, dtype: torch.dtype) -> Model | None:
    """The teacher in the precision of the run, for reading only; the caller's own stays as it is."""
    if teacher is None:
        return None
    module = teacher.module
    if next(module.parameters()).dtype != dtype:
        module = copy.deepcopy(module).to(dtype)
    return Model(module.eval(), teacher.words, teacher.folder)


def mismatch(student: Model, teacher: Model) -> str:
    """What is different about two tokenizers, and what to do."""
    sizes = (student.tokenizer.get_vocab_size(), teacher.tokenizer.get_vocab_size())
    return (
        f"the teacher ({teacher.folder}, {sizes[1]} tokens) and the student ({student.folder}, {sizes[0]}) have "
        "different tokenizers: their probabilities cannot be compared. Give the student the teacher's tokenizer, or "
        'set fallback = "text" under [train] to learn from the teacher\'s texts alone'
    )
