"""A recipe's files: the rows as they were made, those that stay, those that died and of what, and the funnel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import file_digest
from pathlib import Path

import msgspec
from msgspec.structs import replace

from stepwell.errors import StoreError
from stepwell.store import tables
from stepwell.synth.make import Open, make
from stepwell.synth.recipe import Filters, Recipe
from stepwell.synth.row import read, write
from stepwell.synth.sift import Dead, Passed, Sifted, Tools, sift

RAW, ROWS, REJECTED, FUNNEL, ANSWERS = "raw", "rows", "rejected", "funnel.json", "answers"
"""Names within a stage's folder; answers lie beside the stages, for every run."""


def making(recipe: Recipe) -> bytes:
    """All that `made` depends on: the section without what only filters read, and every file that it names."""
    bare = replace(recipe.synth, filters=Filters(), quota=None, held_out=(), real_floor=0.0)
    return msgspec.json.encode(bare) + b"".join(map(digest, sources(recipe)))


def sifting(recipe: Recipe) -> bytes:
    """All that `sifted` depends on beside the rows."""
    held = (recipe.path(name) for table in recipe.synth.held_out for name in table.paths)
    return msgspec.json.encode(recipe.synth) + b"".join(map(digest, held))


def sources(recipe: Recipe) -> Iterator[Path]:
    """The files that rows are made of."""
    for table in (recipe.synth.seeds, recipe.synth.captured):
        yield from map(recipe.path, table.paths if table else ())
    if recipe.synth.generator and recipe.synth.generator.path:
        yield recipe.path(recipe.synth.generator.path)


def digest(path: Path) -> bytes:
    """SHA-256 of a file, or of all files of a table. Raises StoreError."""
    files: Iterable[Path] = tables.files(path) if path.is_dir() else [path]
    try:
        found = b""
        for each in files:
            with each.open("rb") as file:
                found += file_digest(file, "sha256").digest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    return found


def made(recipe: Recipe, out: Path, open_: Open | None) -> None:
    """Make all rows into `out/raw`. See `make.make` for what it raises."""
    write(out / RAW, make(recipe, open_ if recipe.synth.generator else None))


def sifted(recipe: Recipe, raw: Path, out: Path, tools: Tools) -> Sifted:
    """Filter a table into `out/rows`, `out/rejected` and `out/funnel.json`. See `sift.sift` for what it raises."""
    done = sift(recipe, list(read(raw)), tools)
    write(out / ROWS, done.rows)
    tables.write(out / REJECTED, map(msgspec.to_builtins, done.dead), like=Dead)
    (out / FUNNEL).write_bytes(msgspec.json.encode(done.funnel))
    return done


def reread(folder: Path) -> Sifted:
    """What `sifted` wrote. Raises StoreError."""
    try:
        funnel = msgspec.json.decode((folder / FUNNEL).read_bytes(), type=list[Passed])
        dead = [msgspec.convert(record, Dead) for record in tables.read(folder / REJECTED)]
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"{folder} holds no filtered rows ({error}): run `stepwell synth run` first") from error
    return Sifted(list(read(folder / ROWS)), dead, funnel)
