"""Run named stages, each into a folder named by the hash of all that went in: what is there is not done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from stepwell import __version__

HASH_CHARS = 12
Folders = Mapping[str, Path]
Work = Callable[[Folders, Path], None]
"""Makes a stage's files in a folder, from those of the stages before it, by their names."""
Watch = Callable[[str, bool], None]
"""Told each stage's name and whether it was there already."""


class Stage(Struct, frozen=True):
    """One step of a campaign; `inputs` is all that its work depends on beside the stages before."""

    name: str
    inputs: bytes
    work: Work
    resumes: bool = False
    """Whether its work goes on from what it left behind when it was cut short; else it begins with nothing."""


def run(stages: Iterable[Stage], root: Path, watch: Watch = lambda _name, _there: None) -> Folders:
    """Each stage's folder. A stage is done in a folder beside, which gets its name when all is there."""
    root.mkdir(parents=True, exist_ok=True)
    digest = __version__.encode()
    folders: dict[str, Path] = {}
    for number, stage in enumerate(stages, 1):
        digest = sha256(digest + stage.name.encode() + b"\0" + stage.inputs).digest()
        folder = root / f"{number}-{stage.name}-{digest.hex()[:HASH_CHARS]}"
        there = folder.is_dir()
        watch(stage.name, there)
        if not there:
            done_in(folder, folders, stage.work, resumes=stage.resumes)
        folders[stage.name] = folder
    return folders


def done_in(folder: Path, before: Folders, work: Work, *, resumes: bool = False) -> None:
    """Do a stage's work, and only then give its folder its name."""
    incoming = folder.with_name(f".{folder.name}.part")
    if not resumes:
        shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(exist_ok=True)
    work(before, incoming)
    incoming.replace(folder)
