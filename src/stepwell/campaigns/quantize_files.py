"""The files of a search: a recipe's codes, written as the engine reads them, loaded again and verified."""

from __future__ import annotations

from pathlib import Path

from stepwell.campaigns.quantize_job import Job, Results
from stepwell.campaigns.quantize_model import Parent
from stepwell.quality.files import sha256_of
from stepwell.quantize.export import to_gguf
from stepwell.quantize.formats import PLAIN
from stepwell.quantize.frontier import Point


class Files:
    """Each recipe's file, made once."""

    def __init__(self, job: Job, results: Results, model: Parent) -> None:
        self.job, self.results, self.model = job, results, model
        self.hashes: dict[Path, str] = {}

    def made(self, point: Point) -> Path:
        """The file of a recipe. Raises DistillError where it cannot be exported."""
        path = self.results.path("file", point.recipe, ".gguf")
        if not path.is_file():
            plain = point.recipe.default.format in PLAIN and not point.recipe.rules
            coded = {} if plain else self.model.coded(point)
            to_gguf(self.job.model, path, "F16", coded=coded, name=self.job.model.name)
        return path

    def sha256(self, file: Path) -> str:
        """A file's name by what is in it."""
        if file not in self.hashes:
            self.hashes[file] = sha256_of(file)
        return self.hashes[file]
