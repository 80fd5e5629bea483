"""A training run on disk: one file that is replaced whole, and a log whose lines it vouches for.

Killed at any moment, also in the middle of writing, a run finds the last whole checkpoint and goes on exactly there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepwell.errors import DistillError

FILE, LOG = "checkpoint.safetensors", "log.jsonl"


class Progress(Struct, frozen=True, kw_only=True):
    """How far a run has come."""

    step: int = 0
    epoch: int = 0
    at: int = 0
    """Batches of this epoch that are done."""
    tokens: int = 0
    cpu_s: float = 0.0
    best: dict[str, float] = {}
    """Dev measurements of the best weights so far."""
    best_step: int = 0
    since: int = 0
    """Measurements since the best one."""
    done: str = ""
    """Why the run is over; empty while it is not."""
    identity: str = ""
    """Digest of plan, data and model: a checkpoint of another run is not gone on with."""


def write(out: Path, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Replace the checkpoint: whole or not at all, and on the disk before it counts."""
    new = out / f"{FILE}.new"
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, new, metadata={"progress": msgspec.json.encode(progress).decode()})
    sync(new)
    new.replace(out / FILE)
    sync(out)


def read(out: Path, device: torch.device) -> tuple[Progress, dict[str, Tensor]] | None:
    """The last checkpoint, or None where there is none. Raises DistillError where it is damaged."""
    file = out / FILE
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt", device=str(device)) as opened:
            progress = msgspec.json.decode(opened.metadata()["progress"], type=Progress)
            return progress, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise DistillError(f"is damaged: {error}; delete it to begin anew", file=str(file)) from error


def state_of(
    masters: Mapping[str, Tensor], average: Mapping[str, Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """All tensors of a run by name."""
    kept = {f"weight.{name}": weight for name, weight in masters.items()}
    kept |= {f"average.{name}": weight for name, weight in average.items()}
    names = {weight: name for name, weight in masters.items()}
    for optimizer in optimizers:
        for weight, parts in optimizer.state.items():
            kept |= {f"{part}.{names[weight]}": tensor for part, tensor in parts.items()}
    return kept


@torch.no_grad()
def restore(
    kept: Mapping[str, Tensor],
    masters: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Put the tensors of a checkpoint back."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in masters}
    for key, tensor in kept.items():
        part, _, name = key.partition(".")
        if part not in {"weight", "average"}:
            parts[name][part] = tensor
    names = {weight: name for name, weight in masters.items()}
    for name, weight in masters.items():
        weight.copy_(kept[f"weight.{name}"])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            optimizer.state.update({weight: parts[names[weight]] for weight in group["params"]})
    for name, weight in average.items():
        weight.copy_(kept[f"average.{name}"])


def cut_log(out: Path, step: int) -> list[dict[str, Any]]:
    """The log's lines up to a step; later ones, of work that no checkpoint holds, are taken away."""
    file = out / LOG
    if not file.exists():
        return []
    kept = []
    for line in file.read_bytes().splitlines():
        try:
            entry = msgspec.json.decode(line)
        except msgspec.DecodeError:
            break  # torn by the kill
        if entry["step"] <= step:
            kept.append(entry)
    new = out / f"{LOG}.new"
    new.write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in kept))
    new.replace(file)
    return kept


def drop_older(out: Path, keep: int) -> None:
    """Delete the folders of weights that are no longer the best."""
    for folder in out.glob("step-*"):
        if folder.name != f"step-{keep}":
            shutil.rmtree(folder)


def sync(path: Path) -> None:
    """Put a file or folder on the disk itself."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def replace_folder(new: Path, folder: Path) -> None:
    """Copy a folder to its final name; a reader finds the old one or the new one, or for a blink none, never a half."""
    ready = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(ready, ignore_errors=True)
    shutil.copytree(new, ready)
    if folder.exists():
        shutil.rmtree(folder)
    ready.rename(folder)
