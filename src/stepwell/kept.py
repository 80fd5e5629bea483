"""The part of the composition root for what callers give us to keep: stored answers, examples, files, fine-tuning."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from stepwell.config import Config
from stepwell.config_kept import FineTuning
from stepwell.errors import ConfigError
from stepwell.gateway import stored
from stepwell.gateway.database import Database
from stepwell.gateway.http import Opens
from stepwell.gateway.stored import Stored
from stepwell.gateway.surface import Surface, absent
from stepwell.synth.capture import Capture, Worth
from stepwell.types import Caller, Settler

FILES, JOBS = b"/v1/files", b"/v1/fine_tuning/jobs"
NOT_STORED = "nothing is stored here: set [stored] path in stepwell.toml"
NOT_TUNED = "nothing is fine-tuned here: add [fine_tuning] to stepwell.toml"


class Kept(Struct, frozen=True, kw_only=True):
    """What the door and the well need of it."""

    settlers: tuple[Settler, ...]
    surfaces: Mapping[bytes, Surface]
    opens: Opens
    stored: Stored | None = None
    capture: Capture | None = None
    tuning: Tuning | None = None

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on beside requests."""
        capturing = () if self.capture is None else (self.capture.remind(),)
        return capturing if self.tuning is None else (*capturing, self.tuning.run())

    async def close(self) -> None:
        """Write what waits."""
        if self.stored is not None:
            await self.stored.close()
        if self.capture is not None:
            await self.capture.close()
        if self.tuning is not None:
            self.tuning.database.shut()


class Tuning(Struct, frozen=True):
    """Files and jobs."""

    database: Database
    surfaces: Mapping[bytes, Surface]
    opens: Opens
    runner: Any
    """`gateway.tuning.runner.Runner`, which is not loaded where nobody fine-tunes."""

    async def run(self) -> None:
        """Run the jobs."""
        await self.runner.run()


def compose(config: Config, callers: Mapping[bytes, Caller], worth: Worth) -> Kept:
    """Put it together. `worth`: USD that an answer costs at the large model. Raises ConfigError."""
    answers = Stored(config.stored) if config.stored.path else None
    tuning = None if config.fine_tuning is None else fine_tuning(config.fine_tuning, callers, config.server.workers)
    surfaces = {stored.START: absent(NOT_STORED) if answers is None else answers.show}
    surfaces |= {FILES: absent(NOT_TUNED), JOBS: absent(NOT_TUNED)} if tuning is None else tuning.surfaces
    capture = None if config.capture is None else Capture(config.capture, worth)
    settlers = tuple(each.settle for each in (answers, capture) if each is not None)
    opens = nowhere if tuning is None else tuning.opens
    return Kept(settlers=settlers, surfaces=surfaces, opens=opens, stored=answers, capture=capture, tuning=tuning)


def nowhere(*_: object) -> None:
    """No body may be larger than memory holds."""


def fine_tuning(section: FineTuning, callers: Mapping[bytes, Caller], workers: int) -> Tuning:
    """Files, jobs, and what runs them. Raises ConfigError where a recipe is not there."""
    from stepwell.gateway.tuning import file_rows, files, job_rows, jobs, runner  # noqa: PLC0415 - only where wanted

    for key, offered in (("models", section.models), ("teachers", section.teachers)):
        for name, recipe in offered.items():
            if not Path(recipe).is_file():
                raise ConfigError(f"there is no recipe {recipe!r}", field=f"fine_tuning.{key}.{name}")
    database = Database(Path(section.folder) / "fine-tuning.db", file_rows.SCHEMA + job_rows.SCHEMA)
    kept = files.Files(section, database, job_rows.user_of)
    surfaces = {FILES: kept.show, JOBS: jobs.Jobs(section, database, kept).show}
    opens = files.opener(section, callers, workers)
    return Tuning(database, surfaces, opens, runner.Runner(section, database, kept))
