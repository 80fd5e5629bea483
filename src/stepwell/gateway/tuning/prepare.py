"""What a job's run needs, written into its folder; and the command that is run there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from stepwell.config_kept import FineTuning
from stepwell.errors import ConfigError
from stepwell.gateway import private
from stepwell.gateway.tuning import examples, recipe
from stepwell.gateway.tuning.files import Files
from stepwell.gateway.tuning.job_rows import Job

NEEDS = ("stepwell", "torch", "tokenizers", "safetensors")
MISSING = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])"
PATIENCE_S = 60.0
RUN = "run"
"""A job's stages, within its folder."""


class NoExtra(ConfigError):  # noqa: N818 - a word like its siblings in errors.py
    """The environment that is to train cannot."""

    code = "train_extra_missing"


def prepared(job: Job, folder: Path, section: FineTuning, files: Files) -> list[str]:
    """Write rows and recipe; the command. A job that goes on finds the same rows. Raises ConfigError, BadRequest."""
    check_extra(section.python)
    private.folder(folder)
    training = folder / recipe.TRAINING
    if job.validation_file is not None:
        take(files.path(job.validation_file), folder / recipe.VALIDATION)
    take(files.path(job.training_file), training)
    with training.open("rb") as rows:
        num_rows = sum(1 for _ in rows)
    tree = recipe.recipe(job, section, num_rows=num_rows, num_bytes=training.stat().st_size)
    (folder / recipe.RECIPE).write_text(recipe.written(tree), encoding="utf-8")
    return command(folder, section)


def take(source: Path, out: Path) -> None:
    """Write the rows of an uploaded file, once. Raises ConfigError where all have weight 0, or the file is gone."""
    if out.exists():
        return
    part = out.with_suffix(".part")
    try:
        num_rows = examples.rows(source, part)
    except OSError as error:
        raise ConfigError(f"the uploaded file {source.stem} cannot be read ({error.strerror})") from error
    if not num_rows:
        raise ConfigError(f"the uploaded file {source.stem} has no example whose weight is above 0")
    part.replace(out)


def command(folder: Path, section: FineTuning) -> list[str]:
    """`stepwell distill run` on the job's recipe; -P: what lies in the working directory is not code."""
    python = section.python or sys.executable
    told = [str((folder / recipe.RECIPE).absolute()), "--root", str((folder / RUN).absolute())]
    return [
        python,
        "-P",
        "-m",
        "stepwell.cli",
        "distill",
        "run",
        *told,
        "--budget-usd",
        str(section.budget_usd),
        "--json",
        "--lines",
    ]


def check_extra(python: str) -> None:
    """Raise NoExtra where the environment that is to train lacks a package; nothing heavy is imported."""
    if not python:
        missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
        where = "the gateway's environment"
    else:
        where = python
        try:
            asked = subprocess.run(  # noqa: S603 - the operator's interpreter
                [python, "-P", "-c", MISSING, *NEEDS], capture_output=True, text=True, timeout=PATIENCE_S, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NoExtra(f"this interpreter cannot be run ({error})", field="fine_tuning.python") from error
        missing = asked.stdout.split()
    if missing:
        what = f"{where} lacks {', '.join(missing)}: pip install 'stepwell[train]' there, or name another interpreter"
        raise NoExtra(what, field="fine_tuning.python")
