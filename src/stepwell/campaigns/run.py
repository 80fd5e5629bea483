"""Run named stages, each into a folder named by the hash of all that went in: what is there is not done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from stepwell import __version__

HASH_CHARS = 12
Work = Callable[[Path, Path], None]
"""Makes a stage's files in the second folder, from those of the stage before in the first."""
Watch = Callable[[str, bool], None]
"""Told each stage's name and whether it was there already."""


class Stage(Struct, frozen=True):
    """One step of a campaign; `inputs` is all that its work depends on beside the stage before."""

    name: str
    inputs: bytes
    work: Work


def run(stages: Iterable[Stage], root: Path, watch: Watch = lambda _name, _there: None) -> Mapping[str, Path]:
    """Each stage's folder. A stage that was cut short leaves nothing: it is done in a folder beside and moved."""
    root.mkdir(parents=True, exist_ok=True)
    before, digest = root, __version__.encode()
    folders: dict[str, Path] = {}
    for number, stage in enumerate(stages, 1):
        digest = sha256(digest + stage.name.encode() + b"\0" + stage.inputs).digest()
        folder = root / f"{number}-{stage.name}-{digest.hex()[:HASH_CHARS]}"
        there = folder.is_dir()
        watch(stage.name, there)
        if not there:
            done_in(folder, before, stage.work)
        folders[stage.name] = before = folder
    return folders


def done_in(folder: Path, before: Path, work: Work) -> None:
    """Do a stage's work, and only then give its folder its name."""
    incoming = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    work(before, incoming)
    incoming.replace(folder)
