"""What a person sees while rows are made, and when they are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stepwell.synth.card import facts
from stepwell.synth.generator import Watch
from stepwell.synth.plan import Plan
from stepwell.synth.sift import Sifted

REASON_CHARS = 48
Stages = Callable[[str, bool], None]


@contextmanager
def progress() -> Iterator[tuple[Stages, Watch]]:
    """A line a stage, and a bar with the cost while the generator is asked."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[cost]}"), console=Console(stderr=True)) as bar:
        line = bar.add_task("synth", total=None, cost="")

        def watch(name: str, there: bool) -> None:  # noqa: FBT001 - a callback
            bar.console.print(f"{name:<10} {'is there' if there else '…'}")
            bar.reset(line, total=None, description=name, cost="")

        def paid(done: int, total: int, usd: float) -> None:
            bar.update(line, total=total, completed=done, cost=f"{usd:.4f} USD")

        yield watch, paid


def show_plan(plan: Plan) -> None:
    """Rows, calls and USD, line by line."""
    table = Table(title="plan")
    for title in ("what", "rows", "calls", "answered before", "at most, USD"):
        table.add_column(title, justify="left" if title == "what" else "right")
    for line in plan.lines:
        about = "" if line.exact else "about "
        counts = (line.rows, line.calls, line.answered)
        table.add_row(line.what, *(f"{about if num else ''}{num:,}" if num else "" for num in counts),
                      f"{about}{line.most_usd:.4f}" if line.most_usd else "")  # fmt: skip
    table.add_section()
    table.add_row("all", f"{plan.rows:,}", f"{plan.calls:,}", "", f"{plan.most_usd:.4f}")
    console = Console()
    console.print(table)
    console.print(f"{plan.spent_usd:.4f} USD are spent already; --budget-usd of `stepwell synth run` is never passed.")


def show_rows(done: Sifted, folder: Path) -> None:
    """The funnel, and what stayed."""
    table = Table(title="funnel")
    for title in ("filter", "before", "died", "after"):
        table.add_column(title, justify="left" if title == "filter" else "right")
    table.add_column("most often", overflow="ellipsis", no_wrap=True, max_width=REASON_CHARS)
    for passed in done.funnel:
        died = f"{passed.died:,}" if passed.died else ""
        why = Counter(row.reason for row in done.dead if row.rejected_by == passed.filter).most_common(1)
        table.add_row(passed.filter, f"{passed.before:,}", died, f"{passed.after:,}", escape(why[0][0] if why else ""))
    told = facts(done)
    console = Console()
    console.print(table)
    sources = ", ".join(f"{num:,} {source}" for source, num in told.sources.items())
    console.print(f"{told.rows:,} rows stay: {sources}. {told.real_share:.1%} are from people.")
    console.print(f"{told.usd:.4f} USD; {told.provenance_share:.1%} carry their whole provenance.")
    console.print(str(folder), soft_wrap=True)
