"""What a person sees: two columns, times as spans, bytes with commas."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SPANS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
MOST_SHOWN = 2


def show(told: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing."""
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    width = max(map(len, told))
    for name, value in told.items():
        for number, line in enumerate(lines_of(value)):
            print(f"{'' if number else name:<{width}}  {line}")


def lines_of(value: Any) -> Iterable[str]:  # noqa: ANN401 - JSON
    """A value as lines."""
    if isinstance(value, Mapping):
        return [f"{name}: {' '.join(lines_of(each))}" for name, each in value.items()] or ["-"]
    if isinstance(value, list | tuple):
        return [line for each in value for line in lines_of(each)] or ["-"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int):
        return [f"{value:,}"]
    if isinstance(value, float):
        return [f"{value:,.6f}".rstrip("0").rstrip(".")]
    return str(value).splitlines() or ["-"]


def span(seconds: float) -> str:
    """A time in the two largest units that it has."""
    left, parts = int(abs(seconds)), list[str]()
    for size, unit in SPANS:
        if left >= size and len(parts) < MOST_SHOWN:
            parts.append(f"{left // size} {unit}")
            left %= size
    told = " ".join(parts) or "0 s"
    return f"{told} ago" if seconds < 0 else told


@contextmanager
def progress(total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error with what it cost so far; without rich, or without a terminal, nothing."""
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    except ImportError:
        yield lambda _done, _cost: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[cost]}"))
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as bar:
        line = bar.add_task("warm", total=total, cost="")
        yield lambda done, cost: bar.update(line, completed=done, cost=cost)
