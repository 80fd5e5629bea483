"""`stepwell distill interact RECIPE`: teach a student a new skill by interaction; killed, it goes on where it was."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.distill.pupil import Watch
    from stepwell.distill.rounds import Interaction, Round

NEEDED = ("torch", "safetensors", "tokenizers", "jinja2", "numpy", "rich")
COLUMNS = ("round", "new skill", "old skill", "practised", "wrong", "repaired", "calls", "USD")
LEAST_S = 0.1
"""Between two looks at the bar."""
NOT_THERE = 1


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("interact", help="teach a student a new skill by interaction", description=__doc__)
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="a recipe with [student] folder, [teacher] and [interact]"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="where all is kept (default: runs/NAME/interact)")
    parser.add_argument("--budget-usd", type=float, metavar="USD", help="what the teacher may cost, all runs together")
    parser.add_argument("--max-calls", type=int, metavar="N", help="how often it may be asked, all runs together")
    parser.add_argument("--i-may", action="store_true", help="learn from a teacher whose terms restrict training")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no progress")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run or go on; 1 where the new skill has not reached its goal. Raises StepwellError."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"needs {', '.join(lacking)}: pip install 'stepwell[synth,train]'")
    import msgspec  # noqa: PLC0415 - lazy, like all commands

    from stepwell.campaigns.interact import STUDENT, Allowed, interacted  # noqa: PLC0415
    from stepwell.campaigns.specialist_file import load  # noqa: PLC0415
    from stepwell.engines.answers import Budget  # noqa: PLC0415

    recipe = load(given.recipe)
    root = given.root or Path("runs") / recipe.name / "interact"
    with shown(quiet=given.json) as (watch, progress):
        allowed = Allowed(Budget(given.budget_usd, given.max_calls), given.i_may, given.device, watch, progress)
        ended = interacted(recipe, root, allowed)
    print(msgspec.json.encode(ended).decode() if given.json else summary(ended, root / STUDENT))
    goal = recipe.file.interact.goal if recipe.file.interact else 1.0
    return 0 if ended.best.new >= goal else NOT_THERE


@contextmanager
def shown(*, quiet: bool) -> Iterator[tuple[Callable[[str, Round | None], None], Watch]]:
    """A line a round, and a bar for what goes on."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        line = bar.add_task("", total=None)
        what, seen_s = "", 0.0

        def watch(begins: str, over: Round | None) -> None:
            nonlocal what
            what = begins
            bar.reset(line, total=None, description=begins)
            if over is not None and not quiet:
                bar.console.print(told(over), highlight=False)

        def progress(_doing: str, done: int, total: int) -> None:
            nonlocal seen_s
            if monotonic() - seen_s > LEAST_S or done >= total:
                seen_s = monotonic()
                bar.update(line, description=f"{what}", total=total, completed=done)

        yield watch, progress


def told(over: Round) -> str:
    """A round in a line."""
    skills = f"round {over.number}: new skill {over.new:.1%}, old skill {over.old:.1%}"
    return f"{skills}; {over.num_repaired:,} of {over.num_failed:,} mistakes repaired, {over.calls:,} calls so far"


def summary(ended: Interaction, student: Path) -> str:
    """The table at the end, and where the student is."""
    lines = ["  ".join(f"{name:>9}" for name in COLUMNS)]
    for each in ended.rounds:
        cells = (
            str(each.number),
            f"{each.new:.1%}",
            f"{each.old:.1%}",
            f"{each.num_practised:,}",
            f"{each.num_failed:,}",
            f"{each.num_repaired:,}",
            f"{each.calls:,}",
            f"{each.usd:.4f}",
        )
        lines.append("  ".join(f"{cell:>9}" for cell in cells))
    return "\n".join([*lines, f"{ended.reason}; round {ended.best.number} is kept: {student}"])
