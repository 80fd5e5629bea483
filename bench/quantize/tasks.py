"""The five tasks of `recipes/tasks` with their students, made where they are missing: `python -m bench.quantize.tasks`.

Rows and runs are kept in runs/tasks/NAME; a training that was stopped goes on where it was. Each is trained by
`stepwell distill train` in one thread, and says itself how many CPU seconds that took.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from msgspec import Struct
from recipes.tasks import rows
from recipes.tasks.sources import NAMES

from stepwell.campaigns import quantize_task
from stepwell.campaigns.quantize_task import Task
from stepwell.distill import checkpoint
from stepwell.quantize.weights import read

KEPT = Path("runs/tasks")
RECIPES = Path("recipes/tasks")
MOST_CPU_S, MOST_PARAMETERS = 900, 1_000_000
"""What a student may have taken and may be."""


class Made(Struct, frozen=True):
    """A task and its student."""

    task: Task
    student: Path
    """Hugging Face folder."""
    cpu_s: float
    """Of its training."""
    num_parameters: int


def made(name: str) -> Made:
    """A task's rows and trained student, from before or new. Raises FileNotFoundError where there is no data."""
    folder = KEPT / name
    if not (folder / "words" / "tokenizer.json").exists() or not (folder / "gate.jsonl").exists():
        told = rows.write(name, folder)
        print(f"  {name}: {', '.join(f'{part} {num:,}' for part, num in told.items())}", flush=True)
    student = folder / "run" / "student"
    if not (student / "config.json").exists():
        train(name, folder)
    num = sum(weight.size for _, weight in read(student))
    return Made(quantize_task.load(name), student, cpu_s(folder / "run"), num)


def train(name: str, folder: Path) -> None:
    """Train a task's student, or go on."""
    given = [str(RECIPES / f"{name}-student.toml"), "--out", str(folder / "run"), "--threads", "1"]
    command = [sys.executable, "-m", "stepwell.cli", "distill", "train", *given]
    known = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=known, stdin=subprocess.DEVNULL)


def cpu_s(run: Path) -> float:
    """CPU seconds of a training's steps."""
    found = checkpoint.read(run, torch.device("cpu"))
    return found[0].cpu_s if found else float("nan")


def main() -> None:
    """Make all and say what they are."""
    for name in NAMES:
        each = made(name)
        sizes = ", ".join(f"{part} {len(getattr(each.task, part)):,}" for part in quantize_task.SPLITS)
        print(f"{name}: {each.num_parameters:,} parameters, {each.cpu_s:.0f} CPU seconds of training; {sizes}")


if __name__ == "__main__":
    main()
