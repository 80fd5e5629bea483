"""The files of a search: a recipe's codes, written as the engine reads them, loaded again and verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell import verified
from stepwell.campaigns.quantize_job import Job, Results
from stepwell.campaigns.quantize_model import Parent, some
from stepwell.quality.files import sha256_of
from stepwell.quantize.export import to_gguf
from stepwell.quantize.formats import PLAIN
from stepwell.quantize.frontier import Point
from stepwell.quantize.verify import verified as verify

if TYPE_CHECKING:
    from stepwell.quantize.grids import Coded

NUM_VERIFIED = 24
"""Texts at which the engine's whole distributions are compared with torch's."""


class Files:
    """Each recipe's file, made once."""

    def __init__(self, job: Job, results: Results, model: Parent) -> None:
        self.job, self.results, self.model = job, results, model

    def path(self, point: Point) -> Path:
        """Where a recipe's file lies, or will."""
        return self.results.path("trained" if point.trained else "file", point.recipe, ".gguf")

    def made(self, point: Point, codes: Mapping[str, Coded] | None = None) -> Path:
        """The file of a recipe; `codes` where training found them. Raises DistillError where it cannot be exported."""
        path = self.path(point)
        if not path.is_file():
            plain = point.recipe.default.format in PLAIN and not point.recipe.rules
            found = codes if codes is not None else {} if plain else self.model.coded(point)
            to_gguf(self.job.model, path, "F16", coded=found, name=self.job.model.name)
            if codes is not None:
                self.verify(path, codes)  # now that they are at hand: nobody can find them again
        return path

    def sha256(self, point: Point) -> str:
        """A file's name by what is in it."""
        return sha256_of(self.made(point))

    def complaint(self, point: Point) -> str:
        """Why a file cannot be trusted; empty where a fresh process of the engine computes with it what torch does."""
        file = self.made(point)
        if verified.read(file) is None:
            self.verify(file, None if point.trained else self.model.coded(point))
        return verified.complaint(file)

    def verify(self, file: Path, coded: Mapping[str, Coded] | None) -> None:
        """Leave a file's manifest beside it."""
        rows, model = some(self.job.task.search, NUM_VERIFIED, self.job.seed), self.model.model
        texts = [(model.prompt_ids(each.prompt), model.text_ids(each.completion)) for each in rows]
        verify(file, self.job.model, model, texts, coded=coded)
