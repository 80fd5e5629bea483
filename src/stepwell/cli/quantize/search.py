"""`stepwell quantize search MODEL`: the smallest file that keeps a task's quality; killed, it goes on."""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.quantize import needs
from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from stepwell.quantize.search import Found

NO_WINNER = 1
LEAST_ALPHA, EVEN = 1e-6, 0.5
SECONDS = {"s": 1, "m": 60, "h": 3600}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("search", help="the smallest file that keeps the quality", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a Hugging Face folder")
    parser.add_argument("--task", required=True, help="NAME of recipes/tasks, a TOML file or a file of rows")
    parser.add_argument("--margin", required=True, help="what may be lost: 0.01 of the answers, or 0.5bleu")
    parser.add_argument("--target", choices=("size", "latency", "cost"), default="size", help="what is to be small")
    parser.add_argument("--budget", default="20m", metavar="TIME", help="wall time, such as 90s or 20m; never passed")
    parser.add_argument("--cpu", action="store_true", help="the budget is CPU time, in place of wall time")
    parser.add_argument("-o", "--out", type=Path, help="folder of the search (default: runs/quantize/MODEL-TASK)")
    parser.add_argument(
        "--scorer", default="", help="bleu, exact, slots, values or module:function (default: the task's)"
    )
    parser.add_argument(
        "--at-most",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of what the 16-bit file takes: where nothing that passes is below, the model is trained for it",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="chance that a file wins that is worse by the margin")
    parser.add_argument("--seed", type=needs.seed, default=0)
    parser.add_argument("--threads", type=needs.count, default=1, help="for what torch computes")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no progress")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Search or go on; 1 where there is no winner. Raises StepwellError."""
    needs.check()
    logging.getLogger("gguf").setLevel(logging.WARNING)
    import torch  # noqa: PLC0415 - seconds, and only here

    from stepwell.campaigns import quantize_task  # noqa: PLC0415 - lazy, like all commands
    from stepwell.campaigns.quantize import searched  # noqa: PLC0415
    from stepwell.campaigns.quantize_job import Job  # noqa: PLC0415
    from stepwell.campaigns.quantize_train import trained  # noqa: PLC0415
    from stepwell.cli.distill.told import progress  # noqa: PLC0415

    torch.set_num_threads(given.threads)
    budget_s = seconds(given.budget)
    task = quantize_task.load(given.task, scorer=given.scorer)
    out = given.out or Path("runs/quantize") / f"{given.model.resolve().name}-{task.name}"
    with progress(quiet=given.json) as (watch, tell):
        found = searched(
            Job(
                model=given.model.resolve(),
                task=task,
                margin=given.margin,
                out=out,
                target=given.target,
                at_most=share(given.at_most, "at-most"),
                alpha=chance(given.alpha),
                budget_s=budget_s,
                cpu=given.cpu,
                seed=given.seed,
                watch=lambda name: watch(name, False),  # noqa: FBT003 - a callback's own order
                tell=tell,
                train=lambda *told: trained(*told, watch=tell),
            )
        )
    print(as_json(found, out)) if given.json else show(found, out)
    return 0 if found.status == "found" else NO_WINNER


def seconds(told: str) -> float:
    """Wall time such as 90s, 20m, 1.5h. Raises ConfigError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", told)
    if found is None or not float(found[1]):
        raise ConfigError(f"is {told!r}: write a time such as 90s, 20m or 1h", field="budget")
    return float(found[1]) * SECONDS[found[2]]


def share(value: float, field: str) -> float:
    """A share, 0 to below 1. Raises ConfigError."""
    if not 0 <= value < 1:
        raise ConfigError(f"is {value:g}: a share from 0 to below 1", field=field)
    return value


def chance(value: float) -> float:
    """The chance of an error: some, and less than even. Raises ConfigError."""
    if not LEAST_ALPHA <= value < EVEN:
        raise ConfigError(f"is {value:g}: a chance from {LEAST_ALPHA:g} to below {EVEN:g}", field="alpha")
    return value


def as_json(found: Found, out: Path) -> str:
    """All that was found, with where it lies."""
    told = {**msgspec.to_builtins(found), "out": str(out)}
    return msgspec.json.encode(told).decode()


def show(found: Found, out: Path) -> None:
    """The verdict, the frontier, and where it lies."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from stepwell.quantize.card import PICTURE, bounds  # noqa: PLC0415

    console, table = Console(), Table(title="what was asked all search rows")
    for title in ("recipe", "bytes", "bits", "KL", "difference to the parent", "ms a token"):
        table.add_column(title, justify="left" if title == "recipe" else "right")
    most = max((each.num_searched for each in found.points), default=0)
    for each in [each for each in found.points if each.searched and each.num_searched == most]:
        won = found.winner is not None and each.name == found.winner.name
        gaps = "; ".join(f"{told.metric} {bounds(told)}" for told in each.searched)
        pace = f"{each.speed.ms_per_token:.2f}" if each.speed else ""
        kl = "" if each.kl is None else f"{each.kl:.2g}"
        cells = (each.name, f"{each.num_bytes:,}", f"{each.bits:.2f}", kl, gaps, pace)
        table.add_row(*cells, style="bold" if won else None)
    console.print(table)
    console.print(f"{found.status}: {found.why}", soft_wrap=True, highlight=False, markup=False)
    if found.left_out:
        console.print(f"left out for want of time: {', '.join(found.left_out)}", markup=False)
    console.print(f"{out / PICTURE}", soft_wrap=True, markup=False)
