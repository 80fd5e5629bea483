"""What `stepwell distill run --json --lines` says, a JSON object a line, as events and a result.

{"stage": "train", "there": false}      a stage begins, or is there from before
{"step": 100, "train_loss": 1.2}        how training goes
{"student": FOLDER, "gate": {…}, …}     the end: the student's folder and its provenance
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import time
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.gateway.tuning.job_rows import Event, event

METRICS = ("train_loss", "valid_loss")

decode = msgspec.json.Decoder().decode


class Heard(Struct):
    """What some lines said."""

    events: list[Event] = []
    result: Mapping[str, Any] | None = None


def heard(lines: Iterable[bytes]) -> Heard:
    """Understand some lines; what is no JSON object is no word of ours."""
    found = Heard()
    for line in lines:
        try:
            said = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(said, dict):
            understand(said, found)
    return found


def understand(said: Mapping[str, Any], found: Heard) -> None:
    """Add what one line says."""
    step = said.get("step")
    if isinstance(said.get("student"), str):
        found.result = said
    elif isinstance(said.get("stage"), str):
        there = " (kept from before)" if said.get("there") is True else ""
        found.events.append(event(f"Stage {said['stage']}{there}", data={"stage": said["stage"]}))
    elif isinstance(step, int) and not isinstance(step, bool):
        figures = {name: said[name] for name in METRICS if isinstance(said.get(name), int | float)}
        if figures:
            told = ", ".join(f"{name.replace('_', ' ')}={value:.3f}" for name, value in figures.items())
            found.events.append(event(f"Step {step}: {told}", data={"step": step, **figures}, kind="metrics"))


def checkpoint(job: str, model: str, figures: Mapping[str, Any]) -> Event:
    """The model that was made as OpenAI tells a checkpoint, but for its id: the best of a run is its only one."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(time()),
        "fine_tuned_model_checkpoint": model,
        "fine_tuning_job_id": job,
        "metrics": figures,
        "step_number": figures.get("step", 0),
    }


def table(events: Iterable[Mapping[str, Any]]) -> str:
    """The figures of a run as CSV, as OpenAI's result files have them."""
    lines = [",".join(("step", *METRICS))]
    for each in events:
        data = each["data"]
        if each["type"] == "metrics":
            lines.append(",".join(str(data.get(name, "")) for name in ("step", *METRICS)))
    return "\n".join(lines) + "\n"
