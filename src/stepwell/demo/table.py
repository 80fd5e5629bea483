"""The table at the end of a run: each step's share, times, tokens and money."""

from __future__ import annotations

from rich import box
from rich.table import Table

from stepwell.demo.figures import COLUMNS, cells
from stepwell.demo.story import Story

COLOURS = {"template": "#d8c48f", "cache": "#7fb8a4", "specialist": "#4c9aa8", "large": "#2f86c1"}
"""The picture's four colours, a little stronger: they must hold on black and on white."""
WIDE = 96
"""Columns from which there is room between the figures."""


def table(story: Story, width: int) -> Table:
    """A row a step, and the total, in so many columns of the terminal."""
    drawn = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1 if width >= WIDE else 0))
    most_usd = story.total.large_usd
    drawn.add_column("step", footer="all", no_wrap=True)
    for name, total in zip(COLUMNS, cells(story.total, most_usd), strict=True):
        drawn.add_column(name, footer=total, justify="right", no_wrap=True)
    for row in story.rows:
        drawn.add_row(f"[{COLOURS.get(row.step, 'red')}]●[/] {row.step}", *cells(row, most_usd))
    return drawn
