"""Our loop beside TRL's trainers, in one run: the same folders, prompts, seeds, batches and steps, float32, one thread.

Two tasks: SFT of a new student, against SFTTrainer; and reverse KL on the student's own texts, the house writer as the
teacher, against DistillationTrainer. Rounds alternate, each side in a process of its own (`trl_arm`); speed is the CPU
time of the loops, memory the peak of the whole process. Speed counts only where the loss curves agree: step by step
for SFT, and step by step for reverse KL when both are given the same texts; drawn anew, means are compared.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

import msgspec
import torch
from recipes.writer import data

from bench.distill.trl_arm import Job
from stepwell.distill.data import Example
from stepwell.distill.plan import Plan, StudentSection
from stepwell.distill.student import create, load, save
from stepwell.distill.train import train

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-trl"
PACKAGES = ("torch==2.13.0", "trl==1.16.0", "transformers>=5,<6", "peft")
WRITER = ROOT / "models" / "house-writer"
STUDENT = StudentSection(hidden=128, layers=3, heads=4, kv_heads=1, inner=160)
TASKS = ("sft", "own")
SIDES = ("ours", "trl")
APART = 0.01
"""The most that losses may differ, relatively."""
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Size(NamedTuple):
    """How much of everything."""

    rounds: int
    steps: dict[str, int]
    agree: int
    """Steps over which losses are compared."""
    warm: int
    """Steps of SFT behind the student that then learns from its own texts: one that writes noise has none."""


FULL = Size(rounds=3, steps={"sft": 20, "own": 12}, agree=20, warm=150)
QUICK = Size(rounds=1, steps={"sft": 8, "own": 5}, agree=5, warm=60)


class Made(NamedTuple):
    """Folders and rows that both sides read."""

    folder: Path
    pairs: list[tuple[str, str]]
    prompts: list[str]

    def rows(self, task: str, seed: int) -> Path:
        """The rows of a round, in the order in which they are learned."""
        rows = self.pairs if task == "sft" else [(prompt, "-") for prompt in self.prompts]
        file = self.folder / f"{task}-{seed}.jsonl"
        drawn = random.Random(seed).sample(rows, 32 * 24)
        file.write_text("".join(json.dumps(row) + "\n" for row in drawn), encoding="utf-8")
        return file

    def job(self, side: str, task: str, seed: int, steps: int) -> Job:
        """What one process does."""
        return Job(
            side=side,
            task=task,
            student=str(self.folder / ("new" if task == "sft" else "warm") / "student"),
            teacher=str(WRITER),
            rows=str(self.rows(task, seed)),
            out=str(self.folder / f"{side}-{task}-{seed}-{steps}"),
            steps=steps,
            seed=seed,
        )


def measure(*, quick: bool) -> dict[str, Any]:
    """`vs_trl_speed`, `vs_trl_memory`, and what they are made of."""
    size = QUICK if quick else FULL
    if not there():
        print("TRL could not be installed: not compared", flush=True)
        return {}
    print(f"TRL {version('trl')}, transformers {version('transformers')}, torch {version('torch')}", flush=True)
    with tempfile.TemporaryDirectory(prefix="stepwell-trl-") as folder:
        made = make(Path(folder), size)
        apart = {"own": given_texts(made, size.agree)}
        rounds = [compared(made, size, seed) for seed in range(size.rounds)]
    apart["sft"] = max(furthest(*(one["sft", side]["losses"] for side in SIDES)) for one in rounds)
    drawn_apart(rounds)
    figures: dict[str, Any] = {}
    for task in TASKS:
        told = [[one[task, side] for side in SIDES] for one in rounds]
        figures[f"vs_trl_speed_{task}"] = round(median(trl["loop_s"] / ours["loop_s"] for ours, trl in told), 3)
        figures[f"vs_trl_memory_{task}"] = round(median(ours["peak_mb"] / trl["peak_mb"] for ours, trl in told), 3)
        figures[f"vs_trl_apart_{task}"] = apart[task]
        print(f"{task}: losses differ by at most {apart[task]:.2g} of their size", flush=True)
    if max(apart.values()) > APART:
        print("the loss curves do not agree: no speed is claimed", flush=True)
        return figures
    return {
        **figures,
        "vs_trl_speed": min(figures[f"vs_trl_speed_{task}"] for task in TASKS),
        "vs_trl_memory": max(figures[f"vs_trl_memory_{task}"] for task in TASKS),
    }


def there() -> bool:
    """Make the environment that TRL runs in, where it is missing: it shares no package with ours."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    if subprocess.run(
        [python, "-c", "import trl, peft, stepwell.distill.train"], capture_output=True, check=False
    ).returncode:
        print("installing TRL (some minutes) …", flush=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--retries", "5"]
        for wanted in ([PACKAGES[0]], [*PACKAGES[1:], "-e", f"{ROOT}[train]"]):
            if subprocess.run([*pip, *wanted], check=False).returncode:
                return False
    return True


def version(package: str) -> str:
    """The version that is installed beside TRL."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(VENV / "bin" / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def make(folder: Path, size: Size) -> Made:
    """A new student; the same after some SFT; pairs and prompts of E2E's training set. Raises FileNotFoundError."""
    torch.set_num_threads(1)
    texts = data.read("train")
    pairs = [(mr, text) for mr, told in texts.items() for text in told]
    student = create(STUDENT, WRITER, seed=0)
    begin = save(student, folder / "new" / "student", {})
    rows = [Example(*pair) for pair in random.Random(99).sample(pairs, min(len(pairs), 40 * size.warm))]
    plan = Plan(steps=size.warm, batch_tokens=3_000, rate=4e-3, warm_steps=30, average=0.98, save_every=size.warm)
    train(plan, load(begin), rows, folder / "warm")
    return Made(folder, pairs, list(texts))


def compared(made: Made, size: Size, seed: int) -> dict[tuple[str, str], dict[str, Any]]:
    """One round: both tasks on both sides, in an order that turns round by round."""
    told = {}
    for task in TASKS:
        for side in SIDES if seed % 2 == 0 else SIDES[::-1]:
            told[task, side] = one = ran(made.job(side, task, seed, size.steps[task]))
            step_s = one["loop_s"] / size.steps[task]
            print(
                f"round {seed + 1} of {size.rounds}: {task} {side}: {step_s:.3f} CPU seconds a step, setup "
                f"{one['setup_s']:.1f}, first step {one['first_s']:.1f}, peak {one['peak_mb']:.0f} MB",
                flush=True,
            )
    return told


def given_texts(made: Made, steps: int) -> float:
    """Reverse KL of both sides on the same texts: those that our student drew, step by step; how far they differ."""
    texts = str(made.folder / "texts.json")
    losses = [
        ran(msgspec.structs.replace(made.job(side, "own", 1_000, steps), texts=texts))["losses"] for side in SIDES
    ]
    return furthest(*losses)


def furthest(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference, step by step."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def drawn_apart(rounds: Sequence[dict[tuple[str, str], dict[str, Any]]]) -> None:
    """Print how far reverse KL differs where each side draws its own texts: means over the steps, round by round."""
    ratios = [fmean(one["own", "ours"]["losses"]) / fmean(one["own", "trl"]["losses"]) - 1 for one in rounds]
    error = stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(f"own texts, drawn by each: mean loss {fmean(ratios):+.2%} of TRL's, standard error {error:.2%}", flush=True)


def ran(job: Job) -> dict[str, Any]:
    """One process's figures. Raises RuntimeError with the end of what it said where it fails."""
    file = Path(job.out + ".json")
    file.write_bytes(msgspec.json.encode(job))
    alone = {**dict.fromkeys(ONE_THREAD, "1"), "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(file.parent / "hf")}
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-m", "bench.distill.trl_arm", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **alone, **offline},
    )
    if done.returncode:
        raise RuntimeError(f"{job.side} {job.task}: {done.stderr[-1_000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
