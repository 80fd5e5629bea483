"""The student of an interaction: a Hugging Face folder that answers, and learns by the trainer of this room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.distill.generate import generate
from stepwell.distill.interact import Taught
from stepwell.distill.preference import prefer
from stepwell.distill.rounds import InteractSection
from stepwell.distill.student import fingerprint, load, save
from stepwell.distill.train import Told, train

Watch = Callable[[str, int, int], Any]
"""Told what goes on, how much of it is done, and of how much."""


class Student(Struct, frozen=True):
    """Answers greedily; see `interact.Pupil`."""

    section: InteractSection
    device: str = "cpu"
    watch: Watch = lambda _what, _done, _all: None

    def answers(self, student: Path, prompts: Sequence[str]) -> list[str]:
        """The likeliest text of each prompt."""
        done = 0

        def count(num: int) -> None:
            nonlocal done
            done += num
            self.watch("answer", done, len(prompts))

        model = load(student, device=self.device)
        texts = generate(model, prompts, max_tokens=self.section.train.max_tokens, watch=count)
        return [said[0] for said in texts]

    def learn(self, student: Path, taught: Taught, out: Path) -> Path:
        """Train on the examples, then prefer where that is asked for. Raises DistillError."""
        plan = self.section.train

        def step(told: Told) -> None:
            self.watch(f"learn, loss {told.loss:.3f}", told.step, plan.steps)

        trained = train(plan, load(student, device=self.device), taught.examples, out / "train", watch=step)
        steps = round(self.section.preference * plan.steps)
        return (
            self.preferring(trained.folder, taught, steps, out / "preferred")
            if steps and taught.pairs
            else trained.folder
        )

    def preferring(self, student: Path, taught: Taught, steps: int, folder: Path) -> Path:
        """The student after it has learned what to prefer; done once."""
        if folder.exists():
            return folder
        model = load(student, device=self.device)
        prefer(
            model,
            taught.pairs,
            steps,
            beta=self.section.beta,
            seed=self.section.seed,
            watch=lambda step, loss: self.watch(f"prefer, loss {loss:.3f}", step, steps),
        )
        before = msgspec.json.decode((student / "provenance.json").read_bytes())
        return save(
            model, folder, {**before, "preferred": len(taught.pairs), "steps": steps, "beta": self.section.beta}
        )

    def revision(self, student: Path) -> str:
        """SHA-256 of the weights."""
        return fingerprint(student)
