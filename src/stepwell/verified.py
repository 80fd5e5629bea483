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
    except (OSError, UnicodeDecodeError, msgspec.DecodeError):
        return None


def matching(file: Path) -> Manifest | None:
    """The manifest of a file's very bytes; None where there is none. Raises OSError where it cannot be read."""
    manifest = read(file)
    with file.open("rb") as opened:
        sha256 = file_digest(opened, "sha256").hexdigest()
    told = (manifest, manifest.before) if manifest else ()
    return next((each for each in told if each and each.sha256 == sha256), None)


def complaint(file: Path) -> str:
    """Why a file may not be served; empty where its manifest says of these very bytes that they were shown to run."""
    try:
        manifest = matching(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if manifest is None:
        known = place(file).name
        why = f"is not the file that {known} names" if read(file) else f"has no manifest {known} that can be read"
        return f"{why}: run `stepwell quantize verify` on it"
    return "" if manifest.passed else f"did not pass its verification: {'; '.join(manifest.complaints)}"
