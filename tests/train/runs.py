"""One training run as a process of its own, for tests that kill it: `python runs.py OUT JSON`.

JSON: {"plan": {...}, "die_at": "" | "step:N" | "write:N" | "sync:N"}: where to kill -9 itself, if anywhere.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from folders import TEXTS, write_words

from stepwell.distill import checkpoint, student
from stepwell.distill.data import Example
from stepwell.distill.measure import mean_loss
from stepwell.distill.plan import Plan, StudentSection
from stepwell.distill.train import Told, Trained, train

FOODS = ("French", "Italian", "Indian", "Chinese", "Japanese", "English")
SECTION = StudentSection(hidden=32, layers=2, heads=2, kv_heads=1, inner=48, context=128)
SMALL: dict[str, Any] = {
    "steps": 12,
    "batch_tokens": 400,
    "warm_steps": 3,
    "save_every": 4,
    "rate": 5e-3,
    "average": 0.9,
    "precision": "fp32",
}


def rows(num: int = 40) -> list[Example]:
    """A little language: a place and its food, said in two ways."""
    made = []
    for number in range(num):
        food, name = FOODS[number % len(FOODS)], f"Place {number // len(FOODS)}"
        prompt = f"name[{name}], food[{food}]"
        made.append(Example(prompt, f"{name} serves {food} food.", 1.0, f"a{number}"))
        made.append(Example(prompt, f"There is {food} food at {name}.", 1.0, f"b{number}"))
    return made


def words(folder: Path) -> Path:
    return write_words(folder, 320, texts=[text for row in rows() for text in row[:2]] + TEXTS)


def plan(**settings: Any) -> Plan:
    return Plan(**SMALL | settings)


def new(folder: Path, seed: int = 0) -> student.Model:
    return student.create(SECTION, words(folder), seed)


def curve(out: Path) -> list[tuple[int, float]]:
    """Steps and losses of a log."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "rate" in line]


def run(out: Path, settings: dict[str, Any], die_at: str = "") -> Trained:
    kind, _, number = die_at.partition(":")
    calls = 0

    def die(reached: str) -> None:
        nonlocal calls
        calls += reached == kind
        if reached == kind and calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    save_file, sync = checkpoint.save_file, checkpoint.sync

    def save_half(tensors: dict[str, torch.Tensor], path: Path, **options: Any) -> None:
        save_file(tensors, path, **options)
        if kind == "write" and calls + 1 == int(number):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # as far as it had come
        die("write")

    def sync_or_die(path: Path) -> None:
        die("sync")
        sync(path)

    checkpoint.save_file, checkpoint.sync = save_half, sync_or_die
    model = new(out.with_name(f"{out.name}-words"))
    teacher = new(out.with_name(f"{out.name}-words"), seed=7) if settings.get("loss", "ce") != "ce" else None

    def watch(_: Told) -> None:
        die("step")

    held_out = rows()[:6]
    return train(
        plan(**settings),
        model,
        rows(),
        out,
        teacher=teacher,
        dev=lambda model: {"loss": mean_loss(model, held_out)},
        watch=watch,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    told = json.loads(sys.argv[2])
    run(Path(sys.argv[1]), told["plan"], told.get("die_at", ""))
