"""The trade-off in one picture: score against size, time and cost with intervals, and KL against size; SVG alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from math import ceil, floor, log10

from msgspec import Struct

from stepwell.quantize.frontier import Difference, Point, divergence, size, unbeaten

WIDTH, HEIGHT = 760, 800
INK, PALE, MARK, LINE = "#0d4f7c", "#8fa6b8", "#b5542a", "#ddd5c5"
STYLE = (
    "text{font:12px Georgia,serif;fill:#7c7466}.title{font-size:17px;fill:#23201b}.name{font-size:13px;fill:#23201b}"
    f".grid{{stroke:{LINE}}}.zero{{stroke:#7c7466}}.margin{{stroke:{MARK};stroke-dasharray:5 4}}"
    f".point{{fill:{INK};stroke:{INK}}}.preset{{fill:none;stroke:{PALE};stroke-width:1.6}}"
    f".bar{{stroke:{INK};stroke-width:1.3;opacity:.55}}.bar.preset{{stroke:{PALE}}}"
    ".parent{fill:#7c7466;stroke:#7c7466}"
    f".winner{{fill:{MARK};stroke:{MARK}}}.bar.winner{{stroke:{MARK};opacity:1;stroke-width:2}}"
    f".won{{fill:{MARK};paint-order:stroke;stroke:#fff;stroke-width:3px}}"
    f".frontier{{fill:none;stroke:{INK};stroke-width:1.4;opacity:.6}}"
    "@media(prefers-color-scheme:dark){.title,.name{fill:#e9e3d6}.grid{stroke:#2b313b}.point{fill:#4aa9ee;stroke:#4aa9ee}"
    ".bar{stroke:#4aa9ee}.frontier{stroke:#4aa9ee}.won{fill:#e08a5b;stroke:#0d1117}.winner{fill:#e08a5b;stroke:#e08a5b}}"
)
MEGA, KILO = 1e6, 1e3
ROOM = 0.06
"""Of a span, beyond its ends."""
NUM_TICKS, MOST_TICKS = 4, 6
LETTER_PX = 6.5
SCALE = {"bleu": 1.0, "right": 100.0}
UNIT = {"bleu": "BLEU", "right": "% right"}


class Axis(Struct, frozen=True):
    """Where numbers stand between two places, by their logarithm or as they are."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a number; what lies beyond stays at the edge."""
        share = (self.plain(value) - self.plain(self.low)) / (self.plain(self.high) - self.plain(self.low))
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def plain(self, value: float) -> float:
        """The number, or its logarithm."""
        return log10(max(value, 1e-12)) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Round numbers: of a logarithmic axis 1, 2 and 5 of every power, of a long one 1 alone."""
        step = rounded((self.high - self.low) / NUM_TICKS)
        even = [step * each for each in range(ceil(self.low / step), floor(self.high / step) + 1)]
        if not self.log:
            return even
        powers = [10.0**power for power in range(floor(log10(self.low)), ceil(log10(self.high)))]
        for mantissas in ((1, 2, 5), (1,)):
            found = [one * each for each in powers for one in mantissas if self.low <= one * each <= self.high]
            if len(found) <= MOST_TICKS:
                break
        return found if len(found) > NUM_TICKS / 2 else even


def rounded(step: float) -> float:
    """The next of 1, 2, 5, 10, 20 and so on."""
    power = 10.0 ** floor(log10(step))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= step * (1 - 1e-9))


def axis(values: Sequence[float], start: float, end: float, *, log: bool = False) -> Axis:
    """An axis on which all of these have room."""
    low, high = min(values), max(values)
    if log:
        spread = (high / low) ** ROOM if high > low else 1.5
        return Axis(low / spread, high * spread, start, end, log=True)
    room = (high - low) * ROOM or abs(high) * ROOM or 1.0
    return Axis(low - room, high + room, start, end)


class Panel(Struct, frozen=True):
    """One drawing: what is across, in its unit, and where the panel lies."""

    name: str
    across: Callable[[Point], float]
    unit: str
    left: float
    top: float
    wide: float
    tall: float
    log: bool = True

    @property
    def bottom(self) -> float:
        """The panel's lower end."""
        return self.top + self.tall


def picture(points: Iterable[Point], parent: Point, winner: str, title: str) -> str:
    """The drawing of whatever was scored and looked at."""
    known = [each for each in points if each.kl is not None or each.searched]
    inside = "".join(parts(known, parent, winner))
    named = escape(title, quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{named}">'
        f'<style>{STYLE}</style><text class="title" x="24" y="30">{named}</text>{inside}</svg>\n'
    )


def parts(points: Sequence[Point], parent: Point, winner: str) -> Iterator[str]:
    """Legend, the four panels of scores, and the one of divergences."""
    yield from legend()
    scored = [each for each in points if each.searched]
    if scored:
        yield from scores(Panel("size", lambda each: size(each) / MEGA, "MB", 64, 84, 672, 240), scored, parent, winner)
        timed = [each for each in scored if each.speed]
        for panel in small() if timed else ():
            yield from scores(panel, timed, parent, winner)
    looked = [each for each in points if each.kl]
    if looked:
        yield from divergences(Panel("KL to the parent", bits, "bits a weight", 64, 610, 672, 140), looked, winner)


def small() -> Iterator[Panel]:
    """The three panels of times and cost."""
    yield Panel(
        "one at a time", lambda each: each.speed.ms_per_token if each.speed else 0, "CPU ms a token", 64, 390, 184, 150
    )
    yield Panel(
        "many at a time",
        lambda each: each.speed.requests_per_s if each.speed else 0,
        "answers a second and core",
        308,
        390,
        184,
        150,
    )
    yield Panel(
        "cost", lambda each: each.speed.usd_per_1k if each.speed else 0, "USD a thousand answers", 552, 390, 184, 150
    )


def legend() -> Iterator[str]:
    """What the marks mean."""
    for x, kind, said in (
        (30, "winner", "the winner"),
        (118, "point", "tried"),
        (174, "preset", "one format for all, rounded"),
        (366, "parent", "16 bits"),
    ):
        yield f'<circle class="{kind}" cx="{x}" cy="54" r="4.5"/>{label(x + 10, 58, said)}'
    yield line(442, 54, 468, 54, "margin") + label(474, 58, "the margin: lower bounds must lie above")


def first(point: Point) -> Difference:
    """The metric that the picture shows."""
    return point.searched[0]


def scores(panel: Panel, points: Sequence[Point], parent: Point, winner: str) -> Iterator[str]:
    """Score minus the parent's, with its interval, against what is across."""
    scale, shown = SCALE[first(points[0]).metric], [each for each in points if panel.across(each) > 0]
    margin = first(points[0]).margin * scale
    values = [
        -1.6 * margin,
        margin,
        *(min(max(scale * first(each).score - scale * first(each).parent, -4 * margin), 4 * margin) for each in shown),
    ]
    along = [panel.across(each) for each in [*shown, *([parent] if panel.across(parent) > 0 else [])]]
    x = axis(along, panel.left, panel.left + panel.wide, log=panel.log)
    y = axis(values, panel.bottom, panel.top)
    yield from frame(panel, x, y, f"{UNIT[first(points[0]).metric]} against the parent")
    yield line(panel.left, y.at(0), panel.left + panel.wide, y.at(0), "zero")
    yield line(panel.left, y.at(-margin), panel.left + panel.wide, y.at(-margin), "margin")
    if panel.across(parent) > 0:
        told = f"<title>{parent.num_bytes:,} bytes, 16 bits a weight</title>"
        yield f'<circle class="parent" cx="{x.at(panel.across(parent)):.1f}" cy="{y.at(0):.1f}" r="4.5">{told}</circle>'
    for each in sorted(shown, key=lambda each: each.name == winner):
        yield from mark(each, x.at(panel.across(each)), y, winner)


def mark(point: Point, x: float, y: Axis, winner: str) -> Iterator[str]:
    """A point with its interval, and all that is known of it for whoever points at it."""
    told, kind = first(point), kind_of(point, winner)
    scale = SCALE[told.metric]
    middle = y.at(scale * (told.score - told.parent))
    yield line(x, y.at(scale * told.low), x, y.at(scale * told.high), f"bar {kind}")
    name = f"<title>{escape(about(point))}</title>"
    yield f'<circle class="{kind}" cx="{x:.1f}" cy="{middle:.1f}" r="4.5">{name}</circle>'
    if kind == "winner":
        yield f'<text class="won" x="{x + 9:.1f}" y="{middle - 8:.1f}">{escape(point.name)}</text>'


def kind_of(point: Point, winner: str) -> str:
    """How a point is drawn."""
    return "winner" if point.name == winner else "preset" if point.preset else "point"


def about(point: Point) -> str:
    """What is known of a point, in a line."""
    told = [point.name, f"{point.num_bytes:,} bytes", f"{point.bits:.2f} bits a weight"]
    told += [f"KL {point.kl:.4g}"] if point.kl is not None else []
    for each in point.searched:
        scale = SCALE[each.metric]
        bounds = f"{scale * each.low:+.2f} to {scale * each.high:+.2f}"
        told.append(f"{scale * each.score:.2f} {UNIT[each.metric]} ({bounds} against the parent)")
    return ", ".join(told)


def divergences(panel: Panel, points: Sequence[Point], winner: str) -> Iterator[str]:
    """KL against bits a weight, and the line of what no other beats."""
    x = axis([panel.across(each) for each in points], panel.left, panel.left + panel.wide, log=True)
    y = axis([divergence(each) for each in points], panel.bottom, panel.top, log=True)
    yield from frame(panel, x, y, "nats a token")
    best = unbeaten(points, panel.across, divergence)
    places = " ".join(f"{x.at(panel.across(each)):.1f},{y.at(divergence(each)):.1f}" for each in best)
    yield f'<polyline class="frontier" points="{places}"/>'
    for each in sorted(points, key=lambda each: each.name == winner):
        told = escape(about(each))
        place = f'cx="{x.at(panel.across(each)):.1f}" cy="{y.at(divergence(each)):.1f}"'
        yield f'<circle class="{kind_of(each, winner)}" {place} r="3.2"><title>{told}</title></circle>'


def bits(point: Point) -> float:
    """Bits a weight: files, and recipes that were never written, stand on one scale."""
    return point.bits


def frame(panel: Panel, x: Axis, y: Axis, up: str) -> Iterator[str]:
    """Grid, ticks and names of a panel."""
    for value in y.ticks:
        yield line(panel.left, y.at(value), panel.left + panel.wide, y.at(value), "grid")
        yield label(panel.left - 6, y.at(value) + 4, number(value), "end")
    last = float("-inf")
    for value in x.ticks:
        if x.at(value) - last > LETTER_PX * len(number(value)) + 8:
            last = x.at(value)
            yield line(last, panel.bottom, last, panel.bottom + 4, "zero")
            yield label(last, panel.bottom + 17, number(value), "middle")
    yield line(panel.left, panel.bottom, panel.left + panel.wide, panel.bottom, "zero")
    yield f'<text class="name" x="{panel.left}" y="{panel.top - 9}">{panel.name}</text>'
    yield label(panel.left + panel.wide, panel.top - 9, up, "end") if panel.wide > 300 else ""  # noqa: PLR2004
    yield label(panel.left + panel.wide, panel.bottom + 33, panel.unit, "end")


def number(value: float) -> str:
    """A tick as people read it."""
    return f"{value:,.0f}" if abs(value) >= KILO else f"{value:.3g}"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def label(x: float, y: float, said: str, anchor: str = "start") -> str:
    """A small text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
