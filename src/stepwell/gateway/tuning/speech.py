"""What a training run says, a JSON object a line, as events, checkpoints and a result (docs/fine-tuning.md).

{"stage": "train"}                                     a stage begins
{"step": 100, "train_loss": 1.2, "valid_loss": 1.3}    how training goes; with "checkpoint": a folder that is there now
{"result": {"folder": …, "gate": {…}, …}}              the end
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import time
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.gateway.tuning.job_rows import Event, event

METRICS = ("train_loss", "valid_loss", "train_mean_token_accuracy", "valid_mean_token_accuracy", "full_valid_loss")

decode = msgspec.json.Decoder().decode


class Heard(Struct):
    """What some lines said."""

    events: list[Event] = []
    checkpoints: list[Event] = []
    result: Mapping[str, Any] | None = None


def heard(lines: Iterable[bytes], job: str) -> Heard:
    """Understand some lines; what is no JSON object is no word of ours."""
    found = Heard()
    for line in lines:
        try:
            said = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(said, dict):
            understand(said, job, found)
    return found


def understand(said: Mapping[str, Any], job: str, found: Heard) -> None:
    """Add what one line says."""
    step = said.get("step")
    if isinstance(said.get("result"), dict):
        found.result = said["result"]
    elif isinstance(said.get("folder"), str):
        found.result = said
    elif isinstance(said.get("stage"), str):
        there = " (kept from before)" if said.get("there") is True else ""
        found.events.append(event(f"Stage {said['stage']}{there}", data={"stage": said["stage"]}))
    elif isinstance(step, int) and not isinstance(step, bool):
        figures = {name: said[name] for name in METRICS if isinstance(said.get(name), int | float)}
        if figures:
            told = ", ".join(f"{name.replace('_', ' ')}={value:.3f}" for name, value in figures.items())
            found.events.append(event(f"Step {step}: {told}", data={"step": step, **figures}, kind="metrics"))
        if isinstance(said.get("checkpoint"), str):
            found.checkpoints.append(checkpoint(job, step, said["checkpoint"], figures))


def checkpoint(job: str, step: int, folder: str, figures: Mapping[str, float]) -> Event:
    """A checkpoint as OpenAI tells it, but for its id."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(time()),
        "fine_tuned_model_checkpoint": folder,
        "fine_tuning_job_id": job,
        "metrics": {"step": step, **figures},
        "step_number": step,
    }


def table(events: Iterable[Mapping[str, Any]]) -> str:
    """The figures of a run as CSV, as OpenAI's result files have them."""
    lines = [",".join(("step", *METRICS))]
    for each in events:
        data = each["data"]
        if each["type"] == "metrics":
            lines.append(",".join(str(data.get(name, "")) for name in ("step", *METRICS)))
    return "\n".join(lines) + "\n"
