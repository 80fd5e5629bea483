"""What a person sees while a specialist is made, and when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from stepwell.campaigns import cost
from stepwell.campaigns.run import Watch
from stepwell.campaigns.specialist import Result
from stepwell.campaigns.specialist_job import Progress as Tell
from stepwell.quality.verdict import lines

LEAST_S = 0.1
"""Between two looks at a bar."""


@contextmanager
def progress(*, quiet: bool) -> Iterator[tuple[Watch, Tell]]:
    """A line a stage, and a bar within it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    more = (TimeRemainingColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, *more, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        line = bar.add_task("distill", total=None, told="")
        shown_s = 0.0

        def watch(name: str, there: bool) -> None:  # noqa: FBT001 - a callback
            bar.console.print(f"{name:<9} {'is there' if there else '…'}") if not quiet else None
            bar.reset(line, description=name, total=None, told="")

        def tell(done: int, total: int, told: str) -> None:
            nonlocal shown_s
            if monotonic() - shown_s > LEAST_S or done == total:
                shown_s = monotonic()
                bar.update(line, total=total, completed=done, told=told)

        yield watch, tell


def show(result: Result) -> None:
    """What each stage took, what the gate says, and what to do next."""
    table = Table(title="specialist")
    for title in ("stage", "CPU s", "wall s", "paid calls", "USD"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for name, folder in result.folders.items():
        table.add_row(name, *cells(cost.of(folder)))
    table.add_section()
    table.add_row("all", *cells(result.cost))
    console = Console()
    console.print(table)
    for line in lines(result.report) if result.report else ():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if result.report and result.report.decision == "promote":
        console.print(f"next: stepwell distill promote {result.student.parent / 'gate'}", soft_wrap=True, markup=False)
    console.print(str(result.student), soft_wrap=True, markup=False)


def cells(took: cost.Cost) -> tuple[str, ...]:
    """A stage's figures."""
    return f"{took.cpu_s:,.1f}", f"{took.wall_s:,.1f}", f"{took.calls:,}", f"{took.usd:.4f}"


def as_json(result: Result) -> str:
    """The result for programs, with all of provenance.json."""
    made = msgspec.json.decode((result.student / "provenance.json").read_bytes())
    folders = {name: str(folder) for name, folder in result.folders.items()}
    return msgspec.json.encode({"student": str(result.student), "stages": folders, **made}).decode()
