"""The funnel as a picture: one bar a filter, what stays in ink, what dies beside it, an SVG of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from string import Template

from stepwell.synth.sift import Passed

WIDTH, LABEL, COUNT, LINE, TOP = 720, 120, 150, 26, 34
BAR = WIDTH - LABEL - COUNT
SVG = Template("""<svg xmlns="http://www.w3.org/2000/svg" viewBox="-14 -6 $width $height" role="img">
<title>$claim</title>
<style>
svg { background: #fbf8f1; font: 13px "Iowan Old Style", Palatino, Georgia, serif; font-variant-numeric: tabular-nums; }
text { fill: #23201b; } .quiet { fill: #7c7466; } .stays { fill: #4c9aa8; } .dies { fill: #e9dcba; }
@media (prefers-color-scheme: dark) {
  svg { background: #12161d; } text { fill: #e9e3d6; } .quiet { fill: #948d80; } .stays { fill: #3796a6; }
  .dies { fill: #56503f; }
}
</style>
<text x="0" y="16">$claim</text>
$bars
</svg>
""")


def picture(funnel: Sequence[Passed]) -> str:
    """The whole SVG."""
    first, last = funnel[0].before, funnel[-1].after
    claim = f"{first:,} rows went in, {last:,} stayed"
    bars = "\n".join(line for at, passed in enumerate(funnel) for line in bar(passed, first, TOP + at * LINE))
    return SVG.substitute(width=WIDTH + 28, height=TOP + len(funnel) * LINE + 12, claim=escape(claim), bars=bars)


def bar(passed: Passed, most: int, top: int) -> Iterator[str]:
    """One filter's line: its name, what stays, what dies, and how many."""
    stays, dies = (BAR * num / max(1, most) for num in (passed.after, passed.died))
    yield f'<text x="0" y="{top + 14}">{escape(passed.filter)}</text>'
    yield f'<rect class="stays" x="{LABEL}" y="{top + 3}" width="{stays:.1f}" height="14"/>'
    if passed.died:
        wide = max(dies, 1.0)
        yield f'<rect class="dies" x="{LABEL + stays:.1f}" y="{top + 3}" width="{wide:.1f}" height="14"/>'
    told = f"{passed.after:,}" + (f" (\u2212{passed.died:,})" if passed.died else "")
    yield f'<text class="quiet" x="{WIDTH}" y="{top + 14}" text-anchor="end">{told}</text>'
