"""Sensitivities in one picture: a line a matrix, a column a format, darker where more is lost; SVG alone."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import log10

from stepwell.quantize.recipe import Recipe
from stepwell.quantize.sensitivity import Entry, Table

WIDTH, TOP, LEFT, RIGHT, FOOT = 760, 76, 250, 24, 40
TALL, GAP = 20, 6
"""Of a line, and between layers."""
PALE, DARK, MARK = (251, 245, 232), (122, 30, 20), "#0d4f7c"
LEAST = 1e-7
"""Nats: what is below is as good as nothing."""
LIGHT = 0.55
"""From here on letters are white."""
STYLE = (
    "text{font:12px Georgia,serif;fill:#7c7466}.title{font-size:17px;fill:#23201b}.name{fill:#23201b;text-anchor:end}"
    ".top{text-anchor:middle}.cell{font-size:11px;text-anchor:middle;fill:#23201b}.bright{fill:#fff}"
    f".picked{{fill:none;stroke:{MARK};stroke-width:2.5}}"
    "@media(prefers-color-scheme:dark){.title,.name{fill:#e9e3d6}.picked{stroke:#4aa9ee}}"
)


def heat(table: Table, title: str, picked: Recipe | None = None) -> str:
    """The drawing; framed is what a recipe takes."""
    lines = list(places(table))
    height = (lines[-1][1] if lines else TOP) + TALL + FOOT
    inside = "".join(parts(table, lines, picked))
    named = escape(title, quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{named}">'
        f'<style>{STYLE}</style><text class="title" x="24" y="30">{named}</text>{inside}</svg>\n'
    )


def places(table: Table) -> Iterator[tuple[str, int]]:
    """Where the line of each matrix begins: layers stand apart."""
    y, before = TOP, ""
    for name in table.names:
        layer = ".".join(name.split(".")[:2])
        y += GAP if before and layer != before else 0
        yield name, y
        y, before = y + TALL, layer


def parts(table: Table, lines: list[tuple[str, int]], picked: Recipe | None) -> Iterator[str]:
    """Heads of columns, lines, legend."""
    wide = (WIDTH - LEFT - RIGHT) / max(1, len(table.formats))
    found = {(entry.name, entry.format): entry for entry in table.entries}
    between = ends(table)
    for at, format_ in enumerate(table.formats):
        yield f'<text class="top" x="{LEFT + wide * (at + 0.5):.1f}" y="{TOP - 8}">{escape(format_)}</text>'
    for name, y in lines:
        yield f'<text class="name" x="{LEFT - 8}" y="{y + 14}">{escape(name.removesuffix(".weight"))}</text>'
        for at, format_ in enumerate(table.formats):
            if entry := found.get((name, format_)):
                yield from cell(entry, (LEFT + wide * at, y, wide), heated(entry.kl, between))
                if picked is not None and picked.rule(name).format == format_:
                    yield f'<rect class="picked" x="{LEFT + wide * at + 1:.1f}" y="{y}" {size(wide)}/>'
    yield f'<text x="24" y="52">{legend(table, picked)}</text>'


def cell(entry: Entry, place: tuple[float, int, float], share: float) -> Iterator[str]:
    """One format of one matrix: its colour, its KL in thousandths, and all of it when pointed at."""
    x, y, wide = place
    told = f"{entry.name} {entry.format}: KL {entry.kl:.3g} ± {entry.error:.2g} nats, {entry.num_bytes:,} bytes"
    yield f'<rect x="{x + 1:.1f}" y="{y}" {size(wide)} fill="{colour(share)}"><title>{escape(told)}</title></rect>'
    bright = " bright" if share > LIGHT else ""
    yield f'<text class="cell{bright}" x="{x + wide / 2:.1f}" y="{y + 14}">{thousandths(entry.kl)}</text>'


def ends(table: Table) -> tuple[float, float]:
    """Logarithms of the least and the most that is lost."""
    known = [log10(max(each.kl, LEAST)) for each in table.entries] or [0.0]
    return min(known), max(known)


def heated(kl: float, between: tuple[float, float]) -> float:
    """Where a loss lies between two ends, by its logarithm: 0 to 1."""
    low, high = between
    return (log10(max(kl, LEAST)) - low) / (high - low) if high > low else 0.0


def size(wide: float) -> str:
    """Of a cell's rectangle."""
    return f'width="{wide - 2:.1f}" height="{TALL - 2}" rx="2"'


def colour(share: float) -> str:
    """From pale to dark."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(PALE, DARK, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def thousandths(kl: float) -> str:
    """Nats in thousandths, two digits of them."""
    return f"{1000 * kl:.2g}" if 1000 * kl < 99.5 else f"{1000 * kl:.0f}"  # noqa: PLR2004 - three digits


def legend(table: Table, picked: Recipe | None) -> str:
    """What is seen."""
    others = "all others quantized" if table.base else "all others as they are"
    others += ", foreseen" if table.predicted else ""
    framed = "; framed: taken" if picked is not None else ""
    return f"KL to the parent in thousandths of a nat a token, {others}, by {table.method}{framed}"
