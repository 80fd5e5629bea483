"""The loss curve as a small SVG, from the log alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

WIDTH, HEIGHT, MARGIN = 720, 260, 48
NUM_POINTS = 400
INK, PALE, DOT = "#2b5d8a", "#c9d8e6", "#b5542a"


def write_curve(log: Path, picture: Path) -> None:
    """Draw losses (pale: each step, dark: their running mean) and dev measurements named loss."""
    entries = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
    losses = [(int(entry["step"]), float(entry["loss"])) for entry in entries if "rate" in entry]
    dev = [(int(entry["step"]), float(entry["loss"])) for entry in entries if "loss" in entry and "rate" not in entry]
    new = picture.with_name(f".{picture.name}.new")
    new.write_text(curve(losses, dev), encoding="utf-8")
    new.replace(picture)


def curve(losses: Sequence[tuple[int, float]], dev: Sequence[tuple[int, float]]) -> str:
    """The picture."""
    smooth = running(losses)
    seen = [loss for _, loss in [*smooth, *dev]] or [0.0, 1.0]
    low, high = min(seen), max(seen)
    last = max([step for step, _ in losses], default=1)
    frame = (last, low, high if high > low else low + 1)
    inside = [
        *(grid(share, frame) for share in (0.0, 0.5, 1.0)),
        line(thinned(losses), frame, PALE, 1),
        line(thinned(smooth), frame, INK, 2),
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{DOT}"/>' for x, y in (place(one, frame) for one in dev)),
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 12}" text-anchor="end">step {last:,}</text>',
        f'<text x="{MARGIN}" y="20">loss{" (dots: dev)" if dev else ""}</text>',
    ]
    style = "font-family:system-ui,sans-serif;font-size:12px;fill:#555"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Loss over the steps" style="{style}">{"".join(inside)}</svg>\n'
    )


def running(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Running mean, slow where the run is long."""
    keep = 1 - 1 / max(1.0, min(50.0, len(points) / 20))
    smooth: list[tuple[int, float]] = []
    for step, loss in points:
        smooth.append((step, loss if not smooth else keep * smooth[-1][1] + (1 - keep) * loss))
    return smooth


def thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """At most so many points, the last one among them."""
    stride = math.ceil(len(points) / NUM_POINTS) or 1
    return [*points[::stride], *points[-1:]]


def place(point: tuple[int, float], frame: tuple[int, float, float]) -> tuple[float, float]:
    """Where a step and its loss stand on the drawing; what is far above the smooth curve stays at the edge."""
    last, low, high = frame
    share = min(1.0, max(0.0, (point[1] - low) / (high - low)))
    return MARGIN + (WIDTH - 2 * MARGIN) * point[0] / last, HEIGHT - 36 - (HEIGHT - 72) * share


def line(points: Sequence[tuple[int, float]], frame: tuple[int, float, float], colour: str, wide: int) -> str:
    """One curve."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(point, frame) for point in points))
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{wide}"/>'


def grid(share: float, frame: tuple[int, float, float]) -> str:
    """A hairline with its loss."""
    value = frame[1] + share * (frame[2] - frame[1])
    y = place((0, value), frame)[1]
    return (
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>'
    )
