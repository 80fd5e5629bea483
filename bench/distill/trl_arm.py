"""One side of the comparison with TRL, one task, one process: `python -m bench.distill.trl_arm JOB.json`.

Prints one JSON line. Both sides read the same folders and learn the same examples in the same batches. What is timed
is the loop alone: CPU seconds from the end of the first step to the end of the last but one; setup is told apart.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

BORN_S = time.process_time()


class Job(Struct, frozen=True):
    """What one process does."""

    side: str
    """ours or trl."""
    task: str
    """sft, or own: reverse KL on the student's own texts."""
    student: str
    teacher: str
    rows: str
    """JSON lines [prompt, completion], batch after batch."""
    out: str
    size: int = 32
    steps: int = 20
    """Timed steps; one before them warms up."""
    rate: float = 1e-3
    max_tokens: int = 48
    seed: int = 0
    texts: str = ""
    """File of the texts that the student drew: written by ours, read by trl; empty: each draws its own."""


class Watch:
    """Hears of every step's end; the process takes its own time there."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []
        self.losses: list[float] = []

    def told(self, loss: float | None = None) -> None:
        """One step is over."""
        self.ends_s.append(time.process_time())
        if loss is not None:
            self.losses.append(loss)


def main() -> None:
    """Do the job that the file names."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    rows = [json.loads(line) for line in Path(job.rows).read_text(encoding="utf-8").splitlines()]
    watch = Watch()
    begin_s = SIDES[job.side](job, [tuple(row) for row in rows], watch)
    told = {
        "side": job.side,
        "task": job.task,
        "setup_s": begin_s - BORN_S,
        "first_s": watch.ends_s[0] - begin_s,
        "loop_s": watch.ends_s[job.steps] - watch.ends_s[0],
        "peak_mb": peak_mb(),
        "losses": watch.losses[: job.steps + 1],
    }
    print(json.dumps(told))


def peak_mb() -> float:
    """The most memory this process ever had, in MB (10^6 bytes)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def batches(job: Job, rows: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """One batch a step, and one more than is told of: what the last step saves is nobody's loop."""
    return [rows[at * job.size : (at + 1) * job.size] for at in range(job.steps + 2)]


def ours(job: Job, rows: list[tuple[str, str]], watch: Watch) -> float:
    """Stepwell's own loop: every batch is an epoch, so that both sides learn the same ones."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    from stepwell.distill.data import Example  # noqa: PLC0415
    from stepwell.distill.plan import Plan  # noqa: PLC0415
    from stepwell.distill.student import load  # noqa: PLC0415
    from stepwell.distill.train import train  # noqa: PLC0415

    parts = batches(job, rows)
    examples = [[Example(*row) for row in part] for part in parts]
    plan = Plan(
        steps=len(parts),
        batch_tokens=1_000_000_000,
        rate=job.rate,
        warm_steps=0,
        fall_share=0.0,
        decay=0.0,
        average=0.0,
        loss="rkl" if job.task == "own" else "ce",
        alpha=1.0,
        on_policy=1.0 if job.task == "own" else 0.0,
        max_tokens=job.max_tokens,
        precision="fp32",
        seed=job.seed,
        save_every=len(parts),
    )
    student = load(Path(job.student))
    teacher = load(Path(job.teacher)) if job.task == "own" else None
    drawn = recorder() if job.texts else None
    begin_s = time.process_time()
    train(plan, student, examples.__getitem__, Path(job.out), teacher=teacher, watch=lambda told: watch.told(told.loss))
    if drawn is not None:
        Path(job.texts).write_text(json.dumps(drawn))
    return begin_s


def recorder() -> list[list[list[list[int]]]]:
    """Keep what the student draws, step by step: pairs of prompt and text, as token ids."""
    from stepwell.distill import teaching  # noqa: PLC0415

    kept: list[list[list[list[int]]]] = []
    draw = teaching.generate_ids

    def drawn(model: Any, prompts: Any, **settings: Any) -> Any:
        texts = draw(model, prompts, **settings)
        kept.append([[prompt, said[0]] for prompt, said in zip(prompts, texts, strict=True)])
        return texts

    teaching.generate_ids = drawn
    return kept


def trl(job: Job, rows: list[tuple[str, str]], watch: Watch) -> float:
    """TRL's own trainers, as they come: SFTTrainer, or DistillationTrainer with beta 1."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    from transformers import TrainerCallback  # noqa: PLC0415

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.told()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                watch.losses.append(logs["loss"])

    settings: dict[str, Any] = {
        "output_dir": job.out,
        "per_device_train_batch_size": job.size,
        "max_steps": job.steps + 2,
        "learning_rate": job.rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "adam_beta2": 0.98,
        "max_grad_norm": 1.0,
        "seed": job.seed,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "shuffle_dataset": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    trainer = (sft if job.task == "sft" else own)(job, rows, settings, [Steps()])
    begin_s = time.process_time()
    trainer.train()
    return begin_s


def sft(job: Job, rows: list[tuple[str, str]], settings: dict[str, Any], callbacks: list[Any]) -> Any:
    """SFTTrainer on prompt and completion."""
    from datasets import Dataset  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    words = AutoTokenizer.from_pretrained(job.student)
    told = [{"prompt": asked(words, prompt), "completion": text} for prompt, text in rows]
    config = SFTConfig(**settings, max_length=512, train_sampling_strategy="sequential")
    return SFTTrainer(
        job.student, args=config, train_dataset=Dataset.from_list(told), processing_class=words, callbacks=callbacks
    )


def own(job: Job, rows: list[tuple[str, str]], settings: dict[str, Any], callbacks: list[Any]) -> Any:
    """DistillationTrainer: reverse KL on what the student draws, or on the texts that are given."""
    from datasets import Dataset  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415
    from trl import DistillationConfig, DistillationTrainer  # noqa: PLC0415

    words = AutoTokenizer.from_pretrained(job.student, padding_side="left")
    told = [{"prompt": asked(words, prompt)} for prompt, _ in rows]
    config = DistillationConfig(**settings, beta=1.0, max_completion_length=job.max_tokens)
    kind = DistillationTrainer
    if job.texts:
        drawn = iter(json.loads(Path(job.texts).read_text()))

        class Given(DistillationTrainer):
            def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
                texts = {tuple(prompt): text for prompt, text in next(drawn)}
                return [texts[tuple(prompt)] for prompt in prompt_ids]

        kind = Given
    return kind(
        job.student,
        job.teacher,
        args=config,
        train_dataset=Dataset.from_list(told),
        processing_class=words,
        callbacks=callbacks,
    )


def asked(words: Any, prompt: str) -> str:
    """A prompt as the chat template writes it."""
    turns = [{"role": "user", "content": prompt}]
    return str(words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


SIDES: dict[str, Callable[[Job, list[tuple[str, str]], Watch], float]] = {"ours": ours, "trl": trl}

if __name__ == "__main__":
    main()
