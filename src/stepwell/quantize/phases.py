"""What it brings to meet a format after, late in or throughout training: quality and CPU-minutes, as table and SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from msgspec import Struct

WAYS = {
    "none": "32 bits",
    "round": "rounded",
    "after": "after (GPTQ)",
    "late": "late",
    "start": "from the start",
}
"""Ways to the file, and what people call them; `none` is the student as it learned without."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 280, 56, 130, 40, 44
INK, MARK, GRID = "#0d4f7c", "#b5542a", "#ddd5c5"
STYLE = (
    f"text{{font:12px Georgia,serif;fill:#7c7466}}.title{{font-size:16px;fill:#23201b}}.grid{{stroke:{GRID}}}"
    f".dot{{fill:{INK}}}.own{{fill:{MARK}}}.whole{{stroke:{INK};stroke-dasharray:4 4;opacity:.6}}"
    "@media(prefers-color-scheme:dark){.title{fill:#e9e3d6}.grid{stroke:#2b313b}.dot{fill:#4aa9ee}.whole{stroke:#4aa9ee}}"
)
ENDS = {"none", "round"}
"""What the others lie between, or beyond."""
MINUTE_S = 60
NUM_LINES = 4


class Phase(Struct, frozen=True):
    """One way, and what came of it."""

    way: str
    """One of WAYS."""
    loss: float
    """Mean loss a token of the dev rows, in nats, with the numbers that the file holds."""
    cpu_s: float
    """Training, and finding codes."""
    own: bool = False
    """Whether the file that serves was made so."""


def won_back(phases: Sequence[Phase], phase: Phase) -> float | None:
    """The share of what rounding costs that a way wins back; None where the two ends are not there."""
    found = {each.way: each.loss for each in phases}
    if "none" not in found or "round" not in found or found["round"] <= found["none"]:
        return None
    return (found["round"] - phase.loss) / (found["round"] - found["none"])


def table(phases: Sequence[Phase]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| quantized | dev loss | of what rounding costs, won back | CPU-minutes | won back a CPU-minute |"
    yield "|---|---|---|---|---|"
    for each in phases:
        share, minutes = won_back(phases, each), each.cpu_s / MINUTE_S
        told = ("", "") if share is None or each.way in ENDS else (f"{share:.0%}", f"{share / minutes:.0%}")
        name = f"**{WAYS[each.way]}**" if each.own else WAYS[each.way]
        yield f"| {name} | {each.loss:.4f} | {told[0]} | {minutes:.2f} | {told[1]} |"


def picture(phases: Sequence[Phase]) -> str:
    """Loss over CPU-minutes, a dot a way; the dashed line is the student in 32 bits."""
    title = "Loss against CPU-minutes, by when the student meets its format"
    losses, minutes = [each.loss for each in phases], [each.cpu_s / MINUTE_S for each in phases]
    low, high = min(losses), max(losses)
    room = (high - low) * 0.1 or 0.1
    frame = (low - room, high + room, max(minutes) * 1.05 or 1.0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<style>{STYLE}</style><text class="title" x="{LEFT}" y="20">{title}</text>'
        f"{''.join(parts(phases, frame))}</svg>\n"
    )


def parts(phases: Sequence[Phase], frame: tuple[float, float, float]) -> Iterator[str]:
    """Grid, the line of the whole student, dots and their names."""
    low, high, most = frame
    for at in range(NUM_LINES + 1):
        loss = low + (high - low) * at / NUM_LINES
        yield level(loss, frame, "grid") + label(LEFT - 6, up(loss, frame) + 4, f"{loss:.3f}", "end")
        x = LEFT + (WIDTH - LEFT - RIGHT) * at / NUM_LINES
        yield label(x, HEIGHT - BOTTOM + 18, f"{most * at / NUM_LINES:.1f}", "middle")
    yield label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "CPU-minutes", "middle")
    for each in phases:
        if each.way == "none":
            yield level(each.loss, frame, "whole")
        x, y = LEFT + (WIDTH - LEFT - RIGHT) * each.cpu_s / MINUTE_S / most, up(each.loss, frame)
        kind = "own" if each.own else "dot"
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{each.loss:.4f}</title></circle>'
        yield label(x + 9, y + 4, escape(WAYS[each.way]))


def up(loss: float, frame: tuple[float, float, float]) -> float:
    """Where a loss stands."""
    low, high, _ = frame
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (loss - low) / (high - low)


def level(loss: float, frame: tuple[float, float, float], kind: str) -> str:
    """A line from left to right."""
    y = up(loss, frame)
    return f'<line class="{kind}" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'


def label(x: float, y: float, said: str, anchor: str = "start") -> str:
    """A small text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{said}</text>'
