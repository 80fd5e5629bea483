"""The picture of a run: one page of paper, no script, that says how high the water stood."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template

from stepwell.demo import svg
from stepwell.demo.figures import COLUMNS, cells, duration, money
from stepwell.demo.story import STEPS, Example, Row, Story

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Stepwell: $title</title>
<style>$css</style>
</head>
<body>
<main>
<h1>$claim</h1>
<p>$lead</p>

<h2>The water falls</h2>
<p class="quiet">Which step answered, from the first request to the last. The large model stands at the bottom,
like water; every answer it gives is kept one step higher, for the next reader who asks the same.</p>
<figure>$stair</figure>
<ul class="legend">$legend</ul>

<h2>Money</h2>
<div class="sums">
<div><strong>$usd</strong>spent</div>
<div><strong>$large_usd</strong>at the large model alone</div>
<div><strong>$saved</strong>saved</div>
</div>
<figure>$money
<figcaption>Solid: spent. Dashed: what the same answers would have cost. $priced_as</figcaption></figure>

<h2>Descents</h2>
<p class="quiet">$num_strips requests, one bar each, in the order of their coming. A bar is as long as the request took
(each line is ten times the one before), in the colour of the step it stood on; the dot is where it was answered.
Where the cache took long, the same question was already being asked below, and both readers waited for one answer.</p>
<figure>$strips</figure>

<h2>The ledger</h2>
<div class="wide"><table>
<thead><tr>$columns</tr></thead>
<tbody>$rows</tbody>
<tfoot>$total</tfoot>
</table></div>

<h2>What readers saw</h2>
$examples

<footer>$foot</footer>
</main>
</body>
</html>
""")


def page(story: Story, foot: str) -> str:
    """The whole page. `foot` says how, when and where it was measured."""
    total, most_usd = story.total, story.total.large_usd
    return PAGE.substitute(
        title=escape(story.title),
        css=files("stepwell.demo").joinpath("picture.css").read_text(encoding="utf-8"),
        claim=claim(story),
        lead=lead(story),
        stair=svg.stair(story.descents),
        legend="".join(f"<li>{key(row.step)} {row.share:.1%}</li>" for row in story.rows if row.step in STEPS),
        usd=money(total.usd, most_usd),
        large_usd=money(total.large_usd, most_usd),
        saved=f"{total.saved_usd / total.large_usd:.0%}" if total.large_usd else "none",
        money=svg.money(story.descents),
        priced_as=escape(story.priced_as),
        num_strips=f"{min(svg.NUM_STRIPS, len(story.descents)):,}",
        strips=svg.strips(story.descents),
        columns="".join(f"<th>{name}</th>" for name in ("step", *COLUMNS)),
        rows="".join(row_line(row, most_usd) for row in story.rows),
        total=row_line(total, most_usd),
        examples="".join(example(shown) for shown in story.examples),
        foot=escape(foot),
    )


def claim(story: Story) -> str:
    """The headline: how many of how many went all the way down."""
    deep = sum(row.num for row in story.rows if row.step == "large")
    return f"{story.total.num:,} questions, {deep:,} went all the way down."


def lead(story: Story) -> str:
    """What happened, in two sentences."""
    failed = f" {story.num_errors:,} were not answered." if story.num_errors else " Every one was answered."
    return (
        f"{escape(story.title)}: {story.total.num:,} requests over HTTP, 64 at a time, "
        f"in {story.wall_s:.0f} seconds; {story.num_distinct:,} of them asked something new.{failed}"
    )


def row_line(row: Row, most_usd: float) -> str:
    """One line of the ledger's table."""
    first = key(row.step) if row.step else "all"
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (first, *cells(row, most_usd))) + "</tr>"


def key(step: str) -> str:
    """A step's name behind its colour."""
    return f'<span class="key {escape(step)}"></span>{escape(step)}'


def example(shown: Example) -> str:
    """An answer, and under it the facts it was to tell and the step it came from."""
    return (
        f"<blockquote><p>{escape(shown.text)}</p>"
        f'<p class="quiet">{key(shown.step)} in {duration(shown.seconds)} · {escape(shown.mr)}</p></blockquote>'
    )
