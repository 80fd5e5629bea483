"""A specialist's recipe at work: where, and within which limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from stepwell.campaigns.cost import Cost, note
from stepwell.campaigns.specialist_file import Recipe
from stepwell.engines.answers import Answers, Budget
from stepwell.quality.files import sha256_of

SPLIT, SYNTH, FILTER, TEACH, TRAIN, COMPARE, QUANTIZE, GATE, CARD = (
    "split", "synth", "filter", "teach", "train", "compare", "quantize", "gate", "card",
)  # fmt: skip
ANSWERS = "answers"
"""What was paid for, beside the stages: every run reads it, and no run pays for it again."""

Progress = Callable[[int, int, str], None]
"""Told how much of a stage is done, of how much, and what else is to be said."""


class Allowed(Struct, frozen=True):
    """What whoever runs the recipe allows."""

    budget: Budget = Budget()
    i_may: bool = False
    """Use a teacher whose terms restrict training: somebody has read them."""
    processes: int = 1
    """That train side by side."""
    progress: Progress = lambda _done, _all, _told: None


class Job(Struct, frozen=True):
    """A recipe, where its work is kept, and what is allowed."""

    recipe: Recipe
    root: Path
    allowed: Allowed = Allowed()

    @property
    def answers(self) -> Answers:
        """The account of all that was paid."""
        return Answers(self.root / ANSWERS)


def folder_digest(folder: Path) -> bytes:
    """SHA-256 of a model's files, or of the one file. Raises DistillError where there is none."""
    files = sorted(each for each in folder.iterdir() if each.is_file()) if folder.is_dir() else [folder]
    total = sha256()
    for each in files:
        if each.suffix in {".safetensors", ".json", ".jinja", ".gguf"}:
            total.update(each.name.encode() + sha256_of(each).encode())
    return total.digest()


@contextmanager
def paying(job: Job, out: Path) -> Iterator[None]:
    """Note in a stage's folder what it pays."""
    before = job.answers.spent()
    try:
        yield
    finally:
        after = job.answers.spent()
        note(out, Cost(calls=after.calls - before.calls, usd=after.usd - before.usd))
