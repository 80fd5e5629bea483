"""`stepwell distill train` by other means than this process: by TRL, or in Ray's workers."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from stepwell.campaigns.specialist_file import Recipe
    from stepwell.distill.train import Trained

Learned = Callable[["Recipe", argparse.Namespace], "Trained"]
NEEDED = {"trl": ("trl", "datasets", "peft", "transformers"), "ray": ("ray",)}
PATHS = ("recipe", "out", "data", "logits")


def add_means(parser: argparse.ArgumentParser) -> None:
    """Declare --backend and --ray."""
    means = parser.add_mutually_exclusive_group()
    means.add_argument("--backend", choices=("own", "trl"), default="own", help="trl: hand the recipe to TRL")
    means.add_argument("--ray", type=int, default=0, metavar="N", help="train in N workers of Ray, side by side")


def means(given: argparse.Namespace, here: Learned) -> Learned:
    """How to train as the command line says. Raises ConfigError where that is not installed."""
    if given.backend == "trl":
        check("trl")
        return by_trl
    if given.ray:
        check("ray")
        return by_ray
    return here


def check(extra: str) -> None:
    """Raise ConfigError where a package of an extra is not installed."""
    lacking = [name for name in NEEDED[extra] if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"needs {', '.join(lacking)}: pip install 'stepwell[{extra}]'")


def by_trl(recipe: Recipe, given: argparse.Namespace) -> Trained:
    """One run by TRL, of the folder that the student begins with, or of a new one in the run's folder."""
    import torch  # noqa: PLC0415 - seconds, and only here

    from stepwell.cli.distill.train import rows_of  # noqa: PLC0415
    from stepwell.distill import student, trl_backend  # noqa: PLC0415
    from stepwell.distill.bar import bar  # noqa: PLC0415
    from stepwell.distill.data import examples  # noqa: PLC0415
    from stepwell.distill.plan import DIVERGENCES, parsed  # noqa: PLC0415

    quantized = recipe.file.quantize
    if quantized is not None and quantized.learned:
        what = 'TRL does not learn quantized: take when = "after", or train without --backend trl'
        raise ConfigError(what, field="quantize.when")
    if given.threads:
        torch.set_num_threads(given.threads)
    plan, section, teacher = recipe.file.train, recipe.file.student, recipe.file.teacher
    out = given.out or given.recipe.with_suffix("")
    begin = recipe.path(section.folder) if section.folder else out / "begin"
    if not begin.exists():
        student.save(student.create(section, recipe.words(), plan.seed), begin, {})
    judged = parsed(plan.loss)[0] in DIVERGENCES and teacher is not None and teacher.is_folder
    with bar(plan.steps, quiet=given.json) as watch:
        return trl_backend.train(
            plan,
            begin,
            examples(rows_of(recipe, given)),
            out,
            teacher=recipe.path(teacher.path) if judged and teacher is not None else None,
            adapters=section,
            watch=watch,
        )


def by_ray(recipe: Recipe, given: argparse.Namespace) -> Trained:  # noqa: ARG001 - each worker reads it itself
    """One run in so many workers."""
    from stepwell.distill.ray_backend import spread  # noqa: PLC0415 - seconds, and only here

    told = {name: value for name, value in vars(given).items() if name != "run"}
    told |= {name: None if told[name] is None else Path(told[name]).absolute() for name in PATHS}
    out = told["out"] or told["recipe"].with_suffix("")
    trained: Trained = spread(worker, {**told, "ray": 0, "json": True, "folder": Path.cwd()}, out, workers=given.ray)
    return trained


def worker(told: Mapping[str, Any]) -> Trained:
    """What a worker does: the same command, in the same folder."""
    from stepwell.campaigns.specialist_file import load  # noqa: PLC0415
    from stepwell.cli.distill.train import learned  # noqa: PLC0415

    os.chdir(told["folder"])
    return learned(load(told["recipe"]), argparse.Namespace(**told))
