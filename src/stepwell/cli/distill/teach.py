"""`stepwell distill teach RECIPE`: ask the teacher about rows, for texts, scores or logits, within a budget.

What is answered is kept: a run that was stopped, or whose budget was reached, goes on where it was and pays nothing
twice. Rows whose answer is no use (refused, empty, another language, complained about) are kept apart with the reason.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.distill.teach import Taught, TeacherSection
    from stepwell.engines.answers import Spent

EVERY_S = 1.0
INCOMPLETE = 3
"""The status of a run that was stopped by its budget."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("teach", help="ask the teacher for texts, scores or logits", description=__doc__)
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe with a section [teacher]")
    parser.add_argument("--rows", type=Path, required=True, metavar="PATH", help=".jsonl, .parquet or a folder of them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where all is kept (default: runs/RECIPE/teach)")
    parser.add_argument("--budget-usd", type=float, metavar="USD", help="what the teacher may cost, all runs together")
    parser.add_argument("--max-calls", type=int, metavar="N", help="how often it may be asked, all runs together")
    parser.add_argument("--i-may", action="store_true", help="you may train on its answers, whatever its terms say")
    parser.add_argument("--again", action="store_true", help="ask anew where an answer was no use")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Teach, or go on. Raises StepwellError."""
    import msgspec  # noqa: PLC0415

    from stepwell.distill.teach import Job, teach  # noqa: PLC0415
    from stepwell.engines.answers import Budget  # noqa: PLC0415
    from stepwell.store import tables  # noqa: PLC0415

    section = section_of(given.recipe)
    out = given.out or Path("runs") / given.recipe.stem / "teach"
    budget = Budget(given.budget_usd, given.max_calls)
    job = Job(section, given.recipe.parent, out, budget, Progress(), given.again)
    made = teach(job, list(tables.read(given.rows)), i_may=given.i_may)
    print(msgspec.json.encode(made).decode() if given.json else told(made, out))
    return 0 if made.complete else INCOMPLETE


def section_of(recipe: Path) -> TeacherSection:
    """The recipe's [teacher]; its other sections are for others. Raises ConfigError with file, line and field."""
    from msgspec import Struct, defstruct  # noqa: PLC0415

    from stepwell.distill.teach import TeacherSection  # noqa: PLC0415
    from stepwell.errors import ConfigError  # noqa: PLC0415
    from stepwell.toml import placed, typed  # noqa: PLC0415

    try:
        text = recipe.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error}); name a recipe", file=str(recipe)) from error
    wanted = defstruct("Recipe", [("teacher", TeacherSection)], bases=(Struct,), frozen=True)
    try:
        section: TeacherSection = typed(text, wanted, file=str(recipe)).teacher
    except ConfigError as error:
        raise placed(error, recipe) from error
    return section


class Progress:
    """A line on stderr, once in a while."""

    def __init__(self) -> None:
        self.next_s = 0.0

    def __call__(self, done: int, total: int, spent: Spent) -> None:
        """Tell how far it is."""
        if monotonic() >= self.next_s or done == total:
            self.next_s = monotonic() + EVERY_S
            end = "\n" if done == total else ""
            cost = f", {spent.calls:,} calls, {spent.usd:.4f} USD" if spent.calls else ""
            print(f"\r{done:,} of {total:,} answered{cost}", end=end, file=sys.stderr, flush=True)


def told(made: Taught, out: Path) -> str:
    """The summary for people."""
    lines = [
        f"{made.num_kept:,} rows of {made.num_rows:,} with {made.give} of {made.teacher}: {out}",
        f"paid so far: {made.calls:,} calls, {made.usd:.4f} USD",
        f"its terms: {made.terms}",
    ]
    lines += [f"kept apart: {num:,} {reason}" for reason, num in made.apart.items()]
    if made.usable is not None:
        mean, low, high = made.usable
        lines.append(f"of all traffic it answers {mean:.1%} well enough to learn from (95 %: {low:.1%} to {high:.1%})")
    if not made.complete:
        lines.append(f"INCOMPLETE: {made.why}; what is there is kept, and the next run goes on")
    return "\n".join(lines)
