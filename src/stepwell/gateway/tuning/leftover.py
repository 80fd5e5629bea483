"""What ended jobs leave: a tenant's rows and what was made of them are kept no longer than they are needed."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from stepwell.gateway.database import Database
from stepwell.gateway.tuning import job_rows, recipe
from stepwell.gateway.tuning.job_rows import ACTIVE
from stepwell.gateway.tuning.prepare import RUN
from stepwell.gateway.tuning.process import Process

ROWS = (recipe.TRAINING, recipe.VALIDATION)


def forget(folder: Path) -> None:
    """Delete a job's rows and stages; its recipe, what it said and its log stay."""
    shutil.rmtree(folder / RUN, ignore_errors=True)
    for name in ROWS:
        (folder / name).unlink(missing_ok=True)


def tidy(jobs: Path, database: Database) -> None:
    """Forget what belongs to jobs that have ended, however they did: cancelled while they waited, killed on the way.

    Raises StoreError. A job that the database does not know may be one that a damaged file has lost: it stays.
    """
    for folder in sorted(jobs.glob("ftjob-*")):
        if any((folder / name).exists() for name in (RUN, *ROWS)):
            found = database.do(partial(job_rows.named, name=folder.name))
            if found is not None and found.status not in ACTIVE and not Process(folder).lives():
                forget(folder)
