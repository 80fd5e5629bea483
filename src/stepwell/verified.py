"""The manifest beside a model file, `FILE.manifest.json`: which bytes were shown to run right, in which engine.

`stepwell quantize verify` writes it. Whoever places or loads a file asks `complaint`, which needs nothing but the hash.
"""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path

import msgspec
from msgspec import Struct


class Manifest(Struct, frozen=True, kw_only=True):
    """What was verified, against what, and how it came out."""

    file: str
    sha256: str
    """Of the file, hex."""
    num_bytes: int
    passed: bool
    complaints: tuple[str, ...] = ()
    model: str = ""
    """Name of the folder that it was compared with."""
    model_sha256: str = ""
    """Of the folder's weights."""
    tokenizer_sha256: str = ""
    reference: str = ""
    """What the engine was compared with: the codes as they were made, or the weights that the file holds."""
    texts_sha256: str = ""
    """Of the token ids that were compared."""
    num_texts: int = 0
    num_tokens: int = 0
    """Positions at which whole distributions were compared."""
    corpus_sha256: str = ""
    """Of the texts whose tokens were compared."""
    formats: dict[str, int] = {}
    """How many tensors have which format."""
    figures: dict[str, float] = {}
    limits: dict[str, float] = {}
    engine: str = ""
    processor: str = ""
    before: Manifest | None = None
    """The manifest of the file that this one is about to replace: valid until that has happened."""


def place(file: Path) -> Path:
    """Where a file's manifest lies."""
    return file.with_name(f"{file.name}.manifest.json")


def read(file: Path) -> Manifest | None:
    """A file's manifest; None where there is none, or one that cannot be read."""
    try:
        return msgspec.json.decode(place(file).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None


def complaint(file: Path) -> str:
    """Why a file may not be served; empty where its manifest says of these very bytes that they were shown to run."""
    manifest = read(file)
    if manifest is None:
        return f"has no manifest {place(file).name} that can be read: run `stepwell quantize verify` on it"
    try:
        with file.open("rb") as opened:
            sha256 = file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    matching = next((each for each in (manifest, manifest.before) if each and each.sha256 == sha256), None)
    if matching is None:
        return "is not the file that its manifest names: verify it again, or fetch it again"
    if not matching.passed:
        return f"did not pass its verification: {'; '.join(matching.complaints)}"
    return ""
