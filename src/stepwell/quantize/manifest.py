"""Files in the models folder: placed with the manifest of their verification, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from stepwell import verified
from stepwell.errors import DistillError
from stepwell.quality.files import lay, sha256_of
from stepwell.verified import Manifest


def check(file: Path) -> Manifest:
    """The manifest of a file. Raises DistillError for one that was not verified as it is, or did not pass."""
    complaint = verified.complaint(file)
    manifest = None if complaint else verified.matching(file)
    if manifest is None:
        raise DistillError(complaint, file=str(file))
    return manifest


def write(file: Path, manifest: Manifest) -> None:
    """Lay the manifest beside its file."""
    lay(verified.place(file), msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def shelve(file: Path, folder: Path, name: str = "") -> Path:
    """Place a verified file in a folder of models, under its own name by default.

    A process that is killed leaves the old file or the new one, each with its manifest: the new manifest holds the old
    one until the file is replaced. Raises DistillError for a file that was not verified.
    """
    manifest = check(file)
    placed = folder / (name or file.name)
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f".{placed.name}.part"
    shutil.copyfile(file, incoming)
    with incoming.open("rb") as written:
        os.fsync(written.fileno())
    if sha256_of(incoming) != manifest.sha256:
        raise DistillError("was changed while it was placed", file=str(file))
    manifest = msgspec.structs.replace(manifest, file=placed.name, before=None)
    held = verified.matching(placed) if placed.is_file() else None
    before = held and msgspec.structs.replace(held, before=None)
    write(placed, msgspec.structs.replace(manifest, before=before))
    incoming.replace(placed)
    write(placed, manifest)
    return placed
