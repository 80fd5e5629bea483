"""Files in the models folder: placed with the manifest of their verification, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from stepwell import verified
from stepwell.errors import DistillError
from stepwell.quality.files import lay
from stepwell.verified import Manifest


def check(file: Path) -> None:
    """Raise DistillError for a file that was not verified as it is."""
    complaint = verified.complaint(file)
    if complaint:
        raise DistillError(complaint, file=str(file))


def write(file: Path, manifest: Manifest) -> None:
    """Lay the manifest beside its file."""
    lay(verified.place(file), msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def shelve(file: Path, folder: Path, name: str = "") -> Path:
    """Place a verified file in a folder of models, under its own name by default.

    A process that is killed leaves the old file or the new one, each with its manifest: the new manifest holds the old
    one until the file is replaced. Raises DistillError for a file that was not verified.
    """
    check(file)
    manifest = verified.read(file)
    if manifest is None:
        raise DistillError("its manifest is gone", file=str(file))
    placed = folder / (name or file.name)
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f".{placed.name}.part"
    shutil.copyfile(file, incoming)
    with incoming.open("rb") as written:
        os.fsync(written.fileno())
    held = verified.read(placed)
    before = msgspec.structs.replace(held, before=None) if held and placed.is_file() else None
    write(placed, msgspec.structs.replace(manifest, file=placed.name, before=before))
    incoming.replace(placed)
    write(placed, msgspec.structs.replace(manifest, file=placed.name, before=None))
    check(placed)
    return placed
