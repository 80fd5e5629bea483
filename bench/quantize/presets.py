"""What anybody would take: a model in each of llama.cpp's presets, from the smallest file up.

A preset is the mix of formats that `llama-quantize` makes of its name, and, as `pure`, one format for every matrix; the
latter also with importances from the task's own calibration texts ("imatrix").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
from msgspec import Struct

from bench.quantize import peers
from stepwell.campaigns import quantize_task
from stepwell.campaigns.quantize_task import Task
from stepwell.distill import student
from stepwell.quantize.calibrate import measured

PURE = {
    "Q8_0": "Q8_0",
    "Q6_K": "Q6_K",
    "Q5_K_S": "Q5_K",
    "Q5_1": "Q5_1",
    "Q5_0": "Q5_0",
    "Q4_K_S": "Q4_K",
    "Q4_1": "Q4_1",
    "Q4_0": "Q4_0",
    "Q3_K_S": "Q3_K",
    "Q2_K": "Q2_K",
}
"""A preset that has the format, and the format."""


class Preset(Struct, frozen=True):
    """One file."""

    name: str
    file: Path
    num_bytes: int
    matrix_bytes: int
    guided: bool = False
    """By importances."""


def made(folder: Path, task: Task, out: Path) -> list[Preset]:
    """All of them, by size; what is there is not made again. Only importances look at the task."""
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{name.replace(' ', '-')}.gguf" for name, *_ in ways()}
    if not all(file.exists() for file in files.values()):
        importances = importances_of(folder, task)
        for name, kind, pure, guided in ways():
            part = out / "part"
            peers.preset(folder, kind, part, calibration=importances if guided else None, pure=pure)
            part.replace(files[name])
    found = [read(name, files[name], guided=guided) for name, _, _, guided in ways()]
    return sorted(found, key=lambda each: each.num_bytes)


def read(name: str, file: Path, *, guided: bool = False) -> Preset:
    """A file that is there."""
    return Preset(name, file, file.stat().st_size, matrix_bytes(file), guided)


def ways() -> Iterator[tuple[str, str, bool, bool]]:
    """Name, preset, whether it is pure, and whether it has importances."""
    for kind in peers.PRESETS:
        if kind not in peers.GUIDED_ONLY:
            yield kind, kind, False, False
    for kind, format_ in PURE.items():
        yield f"pure {format_}", kind, True, False
        yield f"pure {format_} imatrix", kind, True, True


def importances_of(folder: Path, task: Task) -> Mapping[str, peers.Floats]:
    """Mean squared inputs while the model reads the calibration texts."""
    model = student.load(folder)
    return peers.squares(measured(model, quantize_task.tokens(model, task.calibration)))


def matrix_bytes(file: Path) -> int:
    """Bytes of a file's matrices alone: no norms, tokenizer or alignment."""
    return sum(int(each.n_bytes) for each in gguf.GGUFReader(file).tensors if len(each.shape) > 1)
