"""What a run made, kept under the name of a fine-tuned model, with the gate's word on whether it may serve."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwell.errors import DistillError
from stepwell.gateway import private
from stepwell.gateway.tuning.job_rows import Job

SERVES = "promote"
"""The gate's word for a model that may serve."""
GATE, PROMOTION = "gate", "promotion"
"""Where a run leaves the gate's signed verdict, beside its student, and where it lies in a model's folder."""


FOLDERS = re.compile(r"(?<![\w:/.\-~])/(?:[^\s/'\"`]+/)+")
"""The folders of an absolute path; a URL's are none."""


def model_name(job: Job) -> str:
    """A fine-tuned model's name, in OpenAI's form."""
    return f"ft:{job.model}:{job.tenant}:{job.suffix}:{job.id.removeprefix('ftjob-')[:8]}"


def published(job: Job, result: Mapping[str, Any] | None, models: Path) -> dict[str, Any]:
    """Copy the model, whole or not at all; what of the job changes. Raises DistillError."""
    made = Path(str(result["student"])) if result else None
    if result is None or made is None or not made.is_dir():
        raise DistillError("the run ended well, but told of no folder with a model")
    folder = models / job.id
    part = models / f".{job.id}.part"
    private.folder(models)
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(made, part)
    promotion = made.parent / GATE
    if promotion.is_dir():
        shutil.copytree(promotion, part / PROMOTION)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    tokens = (result.get("training") or {}).get("tokens")
    return {
        "fine_tuned_model": model_name(job),
        "tokens": tokens if isinstance(tokens, int) else None,
        "gate": gate(result, folder),
    }


def gate(result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the gate said, where the model lies (from `[fine_tuning] folder`), and what may be done with it."""
    said = result.get("gate") or {}
    decision = str(said.get("decision", "not judged"))
    gguf = sorted(each.name for each in folder.glob("*.gguf"))
    told = {
        "decision": decision,
        "reason": str(said.get("reason", "the recipe has no [gate]")),
        "serves": decision == SERVES,
        "folder": f"{folder.parent.name}/{folder.name}",
        "gguf": gguf[0] if gguf else None,
        "promotion": f"{folder.parent.name}/{folder.name}/{PROMOTION}" if (folder / PROMOTION).is_dir() else None,
    }
    return {**told, "usd": sum(float(cost.get("usd", 0)) for cost in (result.get("costs") or {}).values())}


def without_folders(text: str) -> str:
    """What a run said, as it is told to its tenant: of the server's absolute paths the names alone."""
    return FOLDERS.sub("", text)


def how(gate: Mapping[str, Any]) -> str:
    """What to do with a model, in a sentence."""
    if gate["serves"]:
        where = f"{gate['folder']}/{gate['gguf'] or ''}"
        return f"The gate lets it serve: name {where} as an engine, and {gate['promotion']} under [specialists]"
    return f"The gate does not let it serve ({gate['decision']}): {gate['reason']}"
