"""`stepwell distill train`: a student learns from rows, as a recipe's [student], [teacher] and [train] say."""

from __future__ import annotations

import argparse
import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.distill import elsewhere
from stepwell.errors import ConfigError
from stepwell.toml import placed

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.campaigns.specialist_file import Recipe
    from stepwell.distill.sparse import SparseRows
    from stepwell.distill.student import Model
    from stepwell.distill.train import Dev, Plan, Trained

NEEDED = ("torch", "safetensors", "tokenizers", "jinja2", "numpy", "tqdm")


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("train", help="train a student; killed, it goes on where it was", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the run; default: a folder named as the recipe, beside it")
    parser.add_argument("--data", type=Path, help="rows to learn from, in place of [train] data")
    parser.add_argument("--logits", type=Path, help="the teacher's stored probabilities: a file or folder of them")
    parser.add_argument("--device", default="", help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--threads", type=int, default=0, help="default: one a core")
    elsewhere.add_means(parser)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Train, or go on. Raises ConfigError, DistillError, StoreError."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"training needs {name}: pip install 'stepwell[train]'")
    from stepwell.campaigns import specialist_quantize  # noqa: PLC0415 - only where it is run
    from stepwell.campaigns.specialist_file import load  # noqa: PLC0415

    recipe = load(given.recipe)
    if recipe.file.quantize is not None:
        specialist_quantize.check(recipe)
    try:
        trained = elsewhere.means(given, learned)(recipe, given)
    except ConfigError as error:
        raise placed(error, given.recipe) from error
    if given.json:
        print(msgspec.json.encode(trained, enc_hook=str).decode())
    else:
        scores = "".join(f", {name} {value:.4g}" for name, value in trained.scores.items())
        print(f"{trained.steps:,} steps, {trained.tokens:,} tokens, {trained.cpu_s:,.0f} CPU seconds{scores}")
        print(f"stopped: {trained.stopped}; curve: {trained.log.with_name('loss.svg')}")
        print(trained.folder)
    return 0


def learned(recipe: Recipe, given: argparse.Namespace) -> Trained:
    """One run of the loop, with a line that says how it goes."""
    import torch  # noqa: PLC0415 - seconds, and only here

    from stepwell.campaigns.learning import transformed  # noqa: PLC0415
    from stepwell.campaigns.specialist_quantize import learned_with  # noqa: PLC0415
    from stepwell.distill import parallel, student, train  # noqa: PLC0415
    from stepwell.distill.bar import bar  # noqa: PLC0415
    from stepwell.distill.data import examples  # noqa: PLC0415

    if given.threads:
        torch.set_num_threads(given.threads)
    plan, (rank, _) = recipe.file.train, parallel.join()
    device = given.device or (f"cuda:{parallel.local_rank()}" if torch.cuda.is_available() else "cpu")
    section = recipe.file.student
    begin = str(recipe.path(section.folder)) if section.folder else ""
    model = student.create(msgspec.structs.replace(section, folder=begin), recipe.words(), plan.seed)
    model.module.to(device)
    learn = partial(
        train.train,
        plan,
        model,
        examples(rows_of(recipe, given)),
        given.out or given.recipe.with_suffix(""),
        teacher=teacher_of(recipe, device),
        sparse=sparse_of(plan, given.logits, model),
        **transformed(model, learned_with(recipe)),
        dev=dev_of(recipe, plan),
    )
    with bar(plan.steps, quiet=bool(rank) or given.json) as watch:
        return learn(watch=watch)


def rows_of(recipe: Recipe, given: argparse.Namespace) -> Path:
    """Where the rows to learn from are. Raises ConfigError."""
    named = given.data or recipe.file.train.data
    if not named:
        raise ConfigError("there is nothing to learn from: name rows here, or with --data", field="train.data")
    return given.data or recipe.path(named)


def teacher_of(recipe: Recipe, device: str) -> Model | None:
    """The teacher, where the loss needs its weights. Raises ConfigError, DistillError."""
    from stepwell.distill.plan import DIVERGENCES, parsed  # noqa: PLC0415
    from stepwell.distill.student import load  # noqa: PLC0415

    if parsed(recipe.file.train.loss)[0] not in {*DIVERGENCES, "seq"}:
        return None
    return load(recipe.teacher(), device=device)


def sparse_of(plan: Plan, logits: Path | None, model: Model) -> SparseRows | None:
    """The teacher's stored probabilities, where the loss is on them. Raises ConfigError, DistillError."""
    from stepwell.distill.plan import SPARSE, parsed  # noqa: PLC0415
    from stepwell.distill.sparse import SparseRows  # noqa: PLC0415

    if parsed(plan.loss)[0] not in SPARSE:
        return None
    if logits is None:
        raise ConfigError(f"the loss {plan.loss!r} needs --logits", field="train.loss")
    return SparseRows.open(logits, model.tokenizer_hash)


def dev_of(recipe: Recipe, plan: Plan) -> Dev | None:
    """The loss on dev rows, where there are any."""
    from stepwell.distill.data import examples  # noqa: PLC0415
    from stepwell.distill.measure import mean_loss  # noqa: PLC0415

    if not plan.dev:
        return None
    rows = examples(recipe.path(plan.dev))
    return lambda model: {"loss": mean_loss(model, rows)}
