"""The same recipe in TRL's hands: large models on accelerators, with adapters, in the processes that torchrun starts.

ce goes to SFTTrainer, a divergence on the student's own texts to DistillationTrainer, on the rows' texts or on a mix to
GKDTrainer. What TRL has no place for is refused with what to change; nothing is measured on the way.
"""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

import stepwell
from stepwell.distill import checkpoint
from stepwell.distill.chat import Words, words_of
from stepwell.distill.data import Example, digest
from stepwell.distill.picture import write_curve
from stepwell.distill.plan import DIVERGENCES, Plan, StudentSection, parsed
from stepwell.distill.student import ADAPTER, TOKENIZER_FILES, fingerprint, write_json
from stepwell.distill.train import Told, Trained
from stepwell.distill.trl_rows import Pairs, mean_tokens, prompts, texts
from stepwell.errors import DistillError

PLAN = "plan.json"
STEPS = "trl"
"""Folder of TRL's own checkpoints in a run's folder."""


def train(
    plan: Plan,
    student: Path,
    examples: Sequence[Example],
    out: Path,
    *,
    teacher: Path | None = None,
    adapters: StudentSection | None = None,
    watch: Callable[[Told], Any] | None = None,
) -> Trained:
    """Train a Hugging Face folder by TRL, or go on; `adapters` says their rank and scale. Raises DistillError."""
    check(plan, examples, student, teacher)
    out.mkdir(parents=True, exist_ok=True)
    same_run(plan, student, examples, out)
    words = words_of(student)
    begun_s = time.process_time()
    heard = Heard(out, watch)
    trainer = trainer_of(plan, student, examples, out, words=words, teacher=teacher, adapters=adapters)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(heard)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(out / STEPS) if (out / STEPS).exists() else None)
    cpu_s = time.process_time() - begun_s
    folder = out / "student"
    if trainer.accelerator.is_main_process:
        told = {
            "stepwell": stepwell.__version__,
            "backend": type(trainer).__name__,
            "torch": torch.__version__,
            "data_sha256": digest(examples),
            "student_from": fingerprint(student),
            "teacher": None if teacher is None else fingerprint(teacher),
            "plan": msgspec.to_builtins(plan),
            "step": trainer.state.global_step,
            "tokens": heard.tokens,
            "cpu_s": round(cpu_s, 1),
            "tokenizer_sha256": words.tokenizer_hash,
        }
        write(trainer, student, folder, told)
        write_curve(out / checkpoint.LOG, out / "loss.svg")
    trainer.accelerator.wait_for_everyone()
    return Trained(
        folder=folder,
        log=out / checkpoint.LOG,
        steps=trainer.state.global_step,
        tokens=heard.tokens,
        cpu_s=cpu_s,
        scores={},
        stopped="steps",
    )


def check(plan: Plan, examples: Sequence[Example], student: Path, teacher: Path | None) -> None:
    """Raise DistillError with all that TRL has no place for, and what to change."""
    name, _ = parsed(plan.loss)
    judged = name in DIVERGENCES
    wrong = {
        f"TRL has no loss {plan.loss!r}: take ce, fkl, rkl or jsd:BETA": name not in {"ce", "fkl", "rkl", "jsd"},
        "a divergence stands alone there: set alpha = 1": judged and plan.alpha != 1,
        "probabilities are compared as they are: set temperature = 1": judged and plan.temperature != 1,
        "labels are smoothed beside ce only: set smoothing = 0": judged and bool(plan.smoothing),
        "texts are drawn as they are judged: set sample_temperature = 1": judged and plan.sample_temperature != 1,
        "on_policy needs a divergence: set loss = 'rkl', or on_policy = 0": not judged and bool(plan.on_policy),
        "a divergence needs a teacher whose weights are here: name its folder": judged and teacher is None,
        "there is no running average of the weights: set average = 0": bool(plan.average),
        "dropout is the model's own there: set dropout = 0": bool(plan.dropout),
        "the optimizer is AdamW: set optimizer = 'adamw'": plan.optimizer != "adamw",
        "nothing is measured on the way: set patience = 0": bool(plan.patience),
        "all rows weigh the same there: leave `weight` out": any(row.weight != 1 for row in examples),
        "there is nothing to learn from": not examples,
    }
    found = [what for what, is_wrong in wrong.items() if is_wrong]
    if judged and teacher is not None and words_of(student).tokenizer_hash != words_of(teacher).tokenizer_hash:
        found.append("teacher and student have different tokenizers: let the teacher write texts, and learn them by ce")
    if found:
        raise DistillError(f"{'; '.join(found)}. Or train without --backend trl")


def same_run(plan: Plan, student: Path, examples: Sequence[Example], out: Path) -> None:
    """Raise DistillError where the folder holds a run of another plan, student or data."""
    free = {"steps", "save_every", "measure_every", "data", "dev"}
    said = {name: value for name, value in msgspec.to_builtins(plan).items() if name not in free}
    new = {**said, "student": fingerprint(student), "rows": digest(examples)}
    file = out / PLAN
    if not file.exists():
        write_json(file, new)
    elif msgspec.json.decode(file.read_bytes()) != new:
        what = "holds a run of another plan, student or data: take another folder, or delete this one"
        raise DistillError(what, file=str(out))


def trainer_of(
    plan: Plan,
    student: Path,
    examples: Sequence[Example],
    out: Path,
    *,
    words: Words,
    teacher: Path | None,
    adapters: StudentSection | None,
) -> Any:  # noqa: ANN401 - TRL is untyped
    """The trainer whose loss it is."""
    import trl  # noqa: PLC0415 - seconds of its own

    name, number = parsed(plan.loss)
    asked = settings(plan, words, examples, out)
    tokenizer = AutoTokenizer.from_pretrained(student, padding_side="left", local_files_only=True)
    tokenizer.chat_template = words.template
    model = AutoModelForCausalLM.from_pretrained(student, local_files_only=True, dtype=torch.float32)
    given = {"processing_class": tokenizer, "peft_config": lora_of(adapters)}
    if name == "ce":
        args = trl.SFTConfig(**asked, max_length=None, label_smoothing_factor=plan.smoothing)
        return trl.SFTTrainer(model, args=args, train_dataset=texts(words, examples), **given)
    judge = AutoModelForCausalLM.from_pretrained(teacher, local_files_only=True, dtype=torch.float32)
    beta = {"fkl": 0.0, "rkl": 1.0}.get(name, number)
    if plan.on_policy == 1:
        args = trl.DistillationConfig(**asked, beta=beta, max_completion_length=plan.max_tokens)
        rows = prompts(words, tokenizer, examples)
        return trl.DistillationTrainer(model, judge, args=args, train_dataset=rows, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from trl.experimental.gkd import GKDConfig, GKDTrainer  # noqa: PLC0415
    args = GKDConfig(
        **asked,
        beta=beta,
        lmbda=plan.on_policy,
        temperature=1.0,
        max_new_tokens=plan.max_tokens,
        max_length=None,
        include_num_input_tokens_seen="non_padding",
    )
    rows = texts(words, examples)
    return GKDTrainer(model, judge, args=args, train_dataset=rows, data_collator=Pairs(words.pad), **given)


def settings(plan: Plan, words: Words, examples: Sequence[Example], out: Path) -> dict[str, Any]:
    """What all trainers are told; a batch has as many rows as fill `batch_tokens` on the average."""
    world = max(1, torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1)
    most = len({row.prompt for row in examples}) if plan.on_policy == 1 else len(examples)
    rows = min(most, plan.batch_tokens / mean_tokens(words, examples))  # a batch that is not full is left out there
    on_gpu = torch.cuda.is_available()
    fall = min(math.ceil(plan.steps * plan.fall_share), plan.steps - plan.warm_steps)
    return {
        "output_dir": str(out / STEPS),
        "per_device_train_batch_size": max(1, round(rows / world)),
        "max_steps": plan.steps,
        "learning_rate": plan.rate,
        "lr_scheduler_type": "warmup_stable_decay",
        "warmup_steps": plan.warm_steps,
        "lr_scheduler_kwargs": {"num_decay_steps": max(0, fall), "min_lr_ratio": 0.02},
        "weight_decay": plan.decay,
        "adam_beta2": 0.98,
        "max_grad_norm": plan.clip,
        "bf16": plan.precision == "bf16" or (plan.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported()),
        "gradient_checkpointing": plan.recompute,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "seed": plan.seed,
        "save_steps": plan.save_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def lora_of(adapters: StudentSection | None) -> Any:  # noqa: ANN401 - peft is untyped
    """The adapters as peft describes them; None where all weights learn."""
    if adapters is None or not adapters.lora:
        return None
    from peft import LoraConfig  # noqa: PLC0415

    scale = adapters.lora_scale * adapters.lora
    return LoraConfig(r=adapters.lora, lora_alpha=scale, target_modules="all-linear", task_type="CAUSAL_LM")


class Heard(TrainerCallback):
    """Each step's loss, in the log and told on."""

    def __init__(self, out: Path, watch: Callable[[Told], Any] | None) -> None:
        self.out, self.watch, self.tokens = out, watch, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Lines of work that no checkpoint holds are taken away."""
        if state.is_world_process_zero:
            checkpoint.cut_log(self.out, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ANN401, ARG002
        """Write it down. Raises DistillError where the loss is no number."""
        if "loss" not in logs:
            return
        loss, before = float(logs["loss"]), self.tokens
        self.tokens = int(logs.get("num_tokens", state.num_input_tokens_seen))
        line = {"step": state.global_step, "loss": loss, "rate": logs["learning_rate"], "tokens": self.tokens - before}
        if state.is_world_process_zero:
            with (self.out / checkpoint.LOG).open("ab") as log:
                log.write(msgspec.json.encode(line) + b"\n")
        if not math.isfinite(loss):
            kept = get_last_checkpoint(self.out / STEPS) or "none"
            what = f"the loss is {loss} at step {state.global_step}; the last good checkpoint: {kept}; lower `rate`"
            raise DistillError(what, file=str(self.out))
        if self.watch is not None:
            self.watch(Told(line["step"], loss, line["rate"], line["tokens"]))


def write(trainer: Any, student: Path, folder: Path, provenance: dict[str, Any]) -> None:  # noqa: ANN401
    """A Hugging Face folder, adapters merged into the weights and alone beside them; whole or not at all."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(new / ADAPTER)
        model = model.merge_and_unload()
    model.save_pretrained(new)
    for name in TOKENIZER_FILES:
        if (student / name).exists():
            shutil.copyfile(student / name, new / name)
    write_json(new / "provenance.json", provenance)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
