"""Values become drawings: the stair, the money and the descent strips, as SVG that needs no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log10

from stepwell.demo.story import STEPS, Descent

WIDTH = 720
NUM_BINS = 60
NUM_STRIPS = 100
STRIP_PX = 7
FASTEST_S, SLOWEST_S = 1e-5, 10.0
"""The ends of the strips' logarithmic scale of time."""
TICKS = {"0.1 ms": 1e-4, "1 ms": 1e-3, "10 ms": 1e-2, "0.1 s": 0.1, "1 s": 1.0}


def drawing(height: int, title: str, parts: Iterator[str]) -> str:
    """Put shapes into one drawing that scales with the page and has a name for those who cannot see it."""
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{inside}</svg>'


def stair(descents: Sequence[Descent], height: int = 190) -> str:
    """The share of answers per step over the run: the large model below like water, the cheap steps above it."""
    return drawing(height + 22, "Share of answers per step over the run", stair_parts(descents, height))


def stair_parts(descents: Sequence[Descent], height: int) -> Iterator[str]:
    """One column a slice of the run, its steps stacked from the deepest up; the unanswered stay blank on top."""
    slices = binned(descents, NUM_BINS)
    wide = WIDTH / max(1, len(slices))
    for index, part in enumerate(slices):
        bottom = float(height)
        for step in reversed(STEPS):
            tall = height * sum(descent.step == step for descent in part) / len(part)
            bottom -= tall
            if tall:
                yield rect(index * wide, bottom, wide + 0.4, tall, step)
    for share in (0.25, 0.5, 0.75):
        yield line(0, height * share, WIDTH, height * share, "grid")
    yield line(0, height, WIDTH, height, "axis")
    yield text(0, height + 16, "first request")
    yield text(WIDTH, height + 16, f"request {len(descents):,}", "end")


def binned(descents: Sequence[Descent], num: int) -> list[Sequence[Descent]]:
    """Cut a run into so many slices of equal length, or fewer where it is short."""
    num = min(num, len(descents))
    edges = [round(index * len(descents) / num) for index in range(num + 1)] if num else []
    return [descents[start:end] for start, end in pairwise(edges)]


def money(descents: Sequence[Descent], height: int = 150) -> str:
    """Money spent as the run went on, beside what the same traffic would have cost."""
    return drawing(height + 22, "Money spent, and what the large model would have cost", money_parts(descents, height))


def money_parts(descents: Sequence[Descent], height: int) -> Iterator[str]:
    """Two running sums and the area between them: what was saved."""
    spent, large = [0.0], [0.0]
    for part in binned(descents, NUM_BINS):
        spent.append(spent[-1] + sum(descent.usd for descent in part))
        large.append(large[-1] + sum(descent.large_usd for descent in part))
    most = max(large[-1], spent[-1]) or 1.0
    lower, upper = points(spent, most, height), points(large, most, height)
    yield f'<polygon class="saved" points="{" ".join([*lower, *reversed(upper)])}"/>'
    yield f'<polyline class="would" points="{" ".join(upper)}"/>'
    yield f'<polyline class="spent" points="{" ".join(lower)}"/>'
    yield line(0, height, WIDTH, height, "axis")
    yield text(0, height + 16, "first request")
    yield text(WIDTH, height + 16, f"request {len(descents):,}", "end")


def points(sums: Sequence[float], most: float, height: int) -> list[str]:
    """Running sums as places on the drawing."""
    wide = WIDTH / max(1, len(sums) - 1)
    return [f"{index * wide:.1f},{height - height * usd / most * 0.97:.1f}" for index, usd in enumerate(sums)]


def strips(descents: Sequence[Descent], num: int = NUM_STRIPS) -> str:
    """So many requests in the order of their coming: a bar each, as long as it took, ending where it was answered."""
    picked = sampled(descents, num)
    return drawing(len(picked) * STRIP_PX + 26, "One bar a request, in order of time", strip_parts(picked))


def sampled(descents: Sequence[Descent], num: int) -> list[Descent]:
    """Every n-th request."""
    num = min(num, len(descents))
    return [descents[index * len(descents) // num] for index in range(num)]


def strip_parts(picked: Sequence[Descent]) -> Iterator[str]:
    """Ticks of time, then strip by strip."""
    bottom = len(picked) * STRIP_PX + 2
    for name, seconds in TICKS.items():
        yield line(across(seconds), 0, across(seconds), bottom, "grid")
        yield text(across(seconds), bottom + 16, name, "middle")
    for index, descent in enumerate(picked):
        yield from strip(descent, index * STRIP_PX + 3)


def strip(descent: Descent, top: float) -> Iterator[str]:
    """One segment a visit, up to the time at which it ended, and a dot where the request was answered."""
    end, passed_s = 0.0, 0.0
    for number, (step, seconds) in enumerate(descent.visits, 1):
        passed_s = max(passed_s + seconds, descent.seconds if number == len(descent.visits) else 0.0)
        start, end = end, across(passed_s)
        yield rect(start, top, max(end - start, 1), 3, step)
    kind = descent.step or "unanswered"
    yield f'<circle class="{kind}" cx="{end:.1f}" cy="{top + 1.5:.1f}" r="2.6"/>'


def across(seconds: float) -> float:
    """Where a time stands on the logarithmic scale."""
    bounded = min(max(seconds, FASTEST_S), SLOWEST_S)
    return (WIDTH - 8) * log10(bounded / FASTEST_S) / log10(SLOWEST_S / FASTEST_S)


def rect(x: float, y: float, wide: float, tall: float, kind: str) -> str:
    """A filled rectangle in its step's colour."""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A hairline."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, said: str, anchor: str = "start") -> str:
    """A small label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{said}</text>'
