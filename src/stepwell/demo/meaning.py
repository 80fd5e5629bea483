"""The second act: the same city, asked in people's own words; the cache answers by meaning, under a promise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from urllib.request import urlopen

from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table

from stepwell.demo.child import GUIDE, MEANING, gateway, guide
from stepwell.demo.city import venues
from stepwell.demo.figures import duration, money
from stepwell.demo.people import questions, wanted
from stepwell.demo.play import Place, Played, play
from stepwell.demo.traffic import Ask
from stepwell.demo.watch import watched
from stepwell.ledger.rollup import Line, rollup, total

NUM_VENUES = 40
WIDE = 96
"""Columns from which there is room between the figures."""
ERROR = 0.02
BOUNDS = ("low", "estimate", "high")
NAMES = {
    "cache: exact": "cache, same words",
    "cache: semantic": "cache, same meaning",
    "cache: slot_fill": "cache, values put in",
    "large": "the guide itself",
    "unanswered": "not answered",
}


class Told(Struct, frozen=True):
    """What a run came to."""

    lines: tuple[Line, ...]
    num_words: int
    """Different wordings."""
    num_meanings: int
    """Different questions behind them."""
    wrong: int
    """Answers that are not what the guide said of the same facts: known here, for the facts are."""
    interval: tuple[float, float, float]
    """What the promise itself believes: share of requests answered wrongly."""
    wall_s: float
    num_errors: int


def played(folder: Path, model: Path, num: int, seed: int, console: Console) -> Told:
    """Ask so many questions of a gateway with a promise. Raises StepwellError."""
    folder.mkdir(exist_ok=True)
    asked = questions(venues(NUM_VENUES, seed), num, seed)
    with guide(folder, model, NUM_VENUES, seed) as behind:
        engine = GUIDE.format(host=behind.host, port=behind.port)
        with gateway(folder, "guide", engine, MEANING.format(error=ERROR)) as place:
            with watched(len(asked), console) as tell:
                began_s = perf_counter()
                done = play(asked, place, tell)
                wall_s = perf_counter() - began_s
            interval = promised(place)
    about = {venue["name"]: venue for venue in venues(NUM_VENUES, seed)}
    facts: Callable[[Ask], str] = lambda ask: wanted(ask.mr, about) or ""  # noqa: E731
    return Told(
        lines=tuple(rollup(folder / "ledger.db", "how")),
        num_words=len({(ask.tenant, ask.mr) for ask in asked}),
        num_meanings=len({(ask.tenant, facts(ask)) for ask in asked}),
        wrong=num_wrong(done, facts),
        interval=interval,
        wall_s=wall_s,
        num_errors=sum(bool(one.error) for one in done),
    )


def num_wrong(done: list[Played], facts: Callable[[Ask], str]) -> int:
    """How many were told something else than what the guide itself said of the same facts."""
    right = {facts(one.ask): one.text for one in done if one.step == "large"}
    return sum(one.step == "cache" and one.text != right.get(facts(one.ask), one.text) for one in done)


def promised(place: Place) -> tuple[float, float, float]:
    """The promise's interval, as the gateway's metrics say it."""
    with urlopen(f"http://{place.host}:{place.port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = dict(re.findall(r'stepwell_promise_error_share\{bound="(\w+)"\} (\S+)', text))
    low, estimate, high = (float(found.get(bound, "nan")) for bound in BOUNDS)
    return low, estimate, high


def show(told: Told, console: Console) -> None:
    """The table, and how the promise stands."""
    everything = total(list(told.lines))
    drawn = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1 if console.width >= WIDE else 0))
    drawn.add_column("answered by", footer="all", no_wrap=True)
    for name, foot in (
        ("requests", f"{everything.requests:,}"),
        ("share", ""),
        ("p50", ""),
        ("p99", ""),
        ("spent", money(everything.usd, everything.large_usd)),
        ("at large", money(everything.large_usd, everything.large_usd)),
    ):
        drawn.add_column(name, footer=foot, justify="right", no_wrap=True)
    for line in told.lines:
        sums = (money(usd, everything.large_usd) for usd in (line.usd, line.large_usd))
        shown = (f"{line.requests:,}", f"{line.share:.1%}", duration(line.p50_s), duration(line.p99_s), *sums)
        drawn.add_row(NAMES.get(line.name, line.name), *shown)
    console.print(drawn)
    low, estimate, high = told.interval
    console.print(
        f"{told.num_words:,} wordings of {told.num_meanings:,} questions. Promised: at most {ERROR:.1%} of requests "
        f"answered wrongly; by its own audits {estimate:.2%} (95 % between {low:.2%} and {high:.2%}); "
        f"in truth {told.wrong / max(1, everything.requests):.2%}.",
        highlight=False,
    )
