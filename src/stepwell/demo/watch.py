"""A progress bar that says, while the requests play, how many each step has answered so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stepwell.demo.play import Played
from stepwell.demo.story import STEPS


@contextmanager
def watched(num: int, console: Console) -> Iterator[Callable[[Played], None]]:
    """Show a bar over `num` requests; the function given is told of each reply."""
    columns = SpinnerColumn(), BarColumn(bar_width=32), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=num)
        counts: Counter[str] = Counter()

        def told(played: Played) -> None:
            counts["errors" if played.error else played.step] += 1
            progress.update(task, advance=1, description=so_far(counts))

        yield told


def so_far(counts: Counter[str]) -> str:
    """Write the counts in the order of the stairs, errors last."""
    shown = [name for name in (*STEPS, "errors") if counts[name] or name == "errors"]
    return " · ".join(f"{name} {counts[name]:,}" for name in shown)
