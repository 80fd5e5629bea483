"""The picture and the table: well-formed, self-contained, and the figures that the ledger has."""

from __future__ import annotations

import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import astuple
from rich.console import Console

from stepwell.demo import picture, svg
from stepwell.demo.figures import duration, money
from stepwell.demo.read import descents, told
from stepwell.demo.story import Descent, Example, Story
from stepwell.demo.table import table
from stepwell.errors import StoreError
from stepwell.ledger.entry import Entry
from stepwell.ledger.file import insert, opened

WAYS = [
    Descent(visits=(("cache", 4e-5), ("large", 0.2)), step="large", seconds=0.25, usd=2e-5, large_usd=2e-5),
    Descent(visits=(("cache", 3e-5),), step="cache", seconds=4e-4, usd=0.0, large_usd=2e-5),
    Descent(visits=(("cache", 3e-5), ("large", 0.1)), step="", seconds=0.1, usd=0.0, large_usd=0.0),
]


def entry(number: int, way: Descent) -> Entry:
    visits = [(step, "answered", "", seconds, 0.0) for step, seconds in way.visits]
    return Entry(
        id=f"r{number}",
        at_s=1000.0 + number + way.seconds,
        tenant="guide-web",
        principal="p",
        model="city-guide",
        kind="chat",
        stream=False,
        step=way.step,
        engine="house-writer",
        status=200 if way.step else 502,
        complete=bool(way.step),
        input_tokens=40,
        output_tokens=20,
        tokens_estimated=False,
        seconds=way.seconds,
        first_s=0.0,
        usd=way.usd,
        large_usd=way.large_usd,
        large_estimated=way.step != "large",
        visits=msgspec.json.encode(visits).decode(),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of 300 requests: a third answered by each step, a third not at all."""
    path = tmp_path / "ledger.db"
    database = opened(path)
    with database:
        insert(database, [astuple(entry(number, WAYS[number % 3])) for number in range(300)])
    database.close()
    return path


@pytest.fixture
def story(ledger: Path) -> Story:
    shown = Example("name[<Fox> & Co]", "Fox <b>& Co</b> is a pub.", "cache", 4e-4)
    return told(ledger, title="City guide", examples=(shown,), num_distinct=200, num_errors=100, wall_s=10.0)


def test_the_story_is_the_ledgers(story: Story) -> None:
    assert [(row.step, row.num) for row in story.rows] == [("cache", 100), ("large", 100), ("unanswered", 100)]
    assert story.total.num == len(story.descents) == 300
    assert story.descents[:3] == tuple(WAYS)
    assert story.total.usd == pytest.approx(100 * 2e-5)
    assert story.total.saved_usd == pytest.approx(100 * 2e-5)
    assert story.total.p50_s == 0.1
    assert story.total.tokens == 300 * 60


def test_a_ledger_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.db"):
        descents(tmp_path / "none.db")


class Tags(HTMLParser):
    """Every tag that opens must close, in order."""

    VOID = frozenset({"meta", "rect", "line", "circle", "polygon", "polyline", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(story: Story) -> None:
    page = picture.page(story, foot="Measured <here>.")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.seen & {"script", "link", "img", "iframe"}
    assert not re.search(r"(?:src|href|url)\s*[=(]", page)
    assert len(page) < 100_000


def test_what_was_written_by_others_is_escaped(story: Story) -> None:
    page = picture.page(story, foot="Measured <here>.")
    assert "Fox &lt;b&gt;&amp; Co&lt;/b&gt;" in page
    assert "name[&lt;Fox&gt; &amp; Co]" in page
    assert "Measured &lt;here&gt;." in page


def test_the_page_says_what_was_not_answered(story: Story) -> None:
    assert "100 were not answered" in picture.page(story, foot="")


def test_the_table_has_a_line_a_step_and_the_sum(story: Story) -> None:
    console = Console(width=120, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115 - recorded, not written
    console.print(table(story, 120))
    console.file.close()
    lines = [line.split() for line in console.export_text().splitlines() if "%" in line]
    assert [line[0] for line in lines] == ["●", "●", "●", "all"]
    assert lines[-1][1:3] == ["300", "100.0%"]
    assert lines[-1][-3:] == ["$0.00200", "$0.00400", "$0.00200"]


ways = some.builds(
    Descent,
    visits=some.lists(
        some.tuples(some.sampled_from(["template", "cache", "specialist", "large"]), some.floats(0, 1e3)), max_size=4
    ).map(tuple),
    step=some.sampled_from(["", "template", "cache", "specialist", "large"]),
    seconds=some.floats(0, 1e3),
    usd=some.floats(0, 10),
    large_usd=some.floats(0, 10),
)


@given(some.lists(ways, max_size=150))
def test_any_run_can_be_drawn(run: list[Descent]) -> None:
    for drawn in (svg.stair(run), svg.money(run), svg.strips(run)):
        for shape in ET.fromstring(drawn).iter("rect"):  # noqa: S314 - our own
            assert -1 <= float(shape.attrib["x"]) <= svg.WIDTH + 1
            assert float(shape.attrib["width"]) >= 0


@given(some.lists(ways, min_size=1, max_size=300), some.integers(1, 100))
def test_slices_lose_nobody(run: list[Descent], num: int) -> None:
    slices = svg.binned(run, num)
    assert [way for part in slices for way in part] == run
    assert all(slices)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.00 µs"),
        (4.567e-6, "4.57 µs"),
        (9.996e-6, "10.0 µs"),
        (9.996e-4, "1.00 ms"),
        (0.25, "250 ms"),
        (61, "61.0 s"),
    ],
)
def test_durations_have_three_figures(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("usd", "most", "shown"),
    [(0, 0, "$0.00"), (1234.5, 1234.5, "$1,234.50"), (0.01, 0.1234, "$0.010"), (-0.002, 0.05, "$-0.0020")],
)
def test_money_keeps_to_the_largest_sums_figures(usd: float, most: float, shown: str) -> None:
    assert money(usd, most) == shown.replace("$-", "-$")


def test_the_ledger_has_the_columns_that_are_read() -> None:
    assert {"visits", "step", "seconds", "usd", "large_usd", "at_s"} <= set(Entry.__struct_fields__)


def test_a_ledger_without_entries_is_said(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="cannot be read"):
        descents(tmp_path / "empty.db")
