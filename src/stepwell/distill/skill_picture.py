"""The new and the old skill over the rounds, as one SVG file that needs no script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from stepwell.distill.rounds import InteractSection, Round

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 320, 48, 110, 34, 52
STYLE = (
    "text{font:12px Georgia,serif;fill:#7c7466}.title{font-size:16px;fill:#23201b}"
    ".grid{stroke:#ddd5c5}.new{stroke:#0d4f7c;fill:none;stroke-width:2.4}.old{stroke:#c08a3e;fill:none;stroke-width:2.4}"
    ".aim{stroke-dasharray:4 4;stroke-width:1}.new.dot{fill:#0d4f7c}.old.dot{fill:#c08a3e}"
    "@media(prefers-color-scheme:dark){.title{fill:#e9e3d6}.grid{stroke:#2b313b}.new{stroke:#4aa9ee}.new.dot{fill:#4aa9ee}}"
)


def picture(rounds: Sequence[Round], section: InteractSection) -> str:
    """The drawing; rounds from left to right, under each the teacher calls so far."""
    title = (
        f"New skill {rounds[0].new:.0%} → {rounds[-1].new:.0%}, old skill {rounds[0].old:.1%} → {rounds[-1].old:.1%}"
    )
    inside = "".join(parts(rounds, section))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<style>{STYLE}</style><text class="title" x="{LEFT}" y="20">{title}</text>{inside}</svg>\n'
    )


def parts(rounds: Sequence[Round], section: InteractSection) -> Iterator[str]:
    """Grid, the goal and the floor, then the two curves."""
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield level(share, "grid")
        yield label(LEFT - 8, up(share) + 4, f"{share:.0%}", "end")
    yield level(section.goal, "new aim")
    yield level(max(0.0, rounds[0].old - section.max_loss), "old aim")
    for place, each in enumerate(rounds):
        x = across(place, len(rounds))
        yield label(x, HEIGHT - BOTTOM + 20, f"round {each.number}" if place else "before", "middle")
        yield label(x, HEIGHT - BOTTOM + 36, f"{each.calls:,} calls", "middle")
    yield from curve(rounds, "new", lambda each: each.new)
    yield from curve(rounds, "old", lambda each: each.old)


def curve(rounds: Sequence[Round], kind: str, share: Callable[[Round], float]) -> Iterator[str]:
    """A line with a dot a round and its name at the end."""
    spots = [(across(place, len(rounds)), up(share(each))) for place, each in enumerate(rounds)]
    yield f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>'
    for (x, y), each in zip(spots, rounds, strict=True):
        yield f'<circle class="{kind} dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{share(each):.1%}</title></circle>'
    x, y = spots[-1]
    yield label(x + 10, y + (14 if kind == "new" else -4), f"{kind} {share(rounds[-1]):.1%}")


def across(place: int, num: int) -> float:
    """Where a round stands."""
    return LEFT + 30 + (WIDTH - LEFT - RIGHT - 30) * place / max(1, num - 1)


def up(share: float) -> float:
    """Where a share stands."""
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def level(share: float, kind: str) -> str:
    """A line from left to right."""
    return f'<line class="{kind}" x1="{LEFT}" y1="{up(share):.1f}" x2="{WIDTH - RIGHT + 10}" y2="{up(share):.1f}"/>'


def label(x: float, y: float, said: str, anchor: str = "start") -> str:
    """A small text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{said}</text>'
