"""The demonstration from end to end: ask, play, read the ledger, print the table, draw the picture."""

from __future__ import annotations

import os
import platform
from collections import Counter
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from time import perf_counter

from msgspec import Struct
from rich.console import Console

import stepwell
from stepwell.demo import campaign, city, meaning, picture, score, specialist
from stepwell.demo.child import capture_table, gateway, writer_table
from stepwell.demo.play import NUM_IN_FLIGHT, Played, play
from stepwell.demo.read import told
from stepwell.demo.story import Example, Story
from stepwell.demo.table import table
from stepwell.demo.traffic import TENANTS, Ask, asks, num_distinct
from stepwell.demo.watch import watched

NUM_VENUES = 200
NUM_EXAMPLES = 5
NUM_ERRORS_SHOWN = 5


class Shown(Struct, frozen=True):
    """What is left of a run: the picture, and how many requests were not answered."""

    page: Path
    num_errors: int


def show(*, data: Path | None, num: int, seed: int, folder: Path, model: Path) -> Shown:
    """Play so many requests and show what they came to. Raises StepwellError where they cannot be played."""
    console = Console()
    texts = score.read(data) if data else {}
    questions = list(texts) or city.questions(NUM_VENUES, seed)
    asked = asks(questions, num, seed, each_once=bool(texts))
    where = f"the {len(texts):,} inputs of {data.name}" if data else f"a city of {NUM_VENUES} invented venues"
    console.print(
        f"A city guide: {num:,} requests about {where}, {num_distinct(asked):,} of them new to their tenant, "
        f"from {len(TENANTS)} tenants, {NUM_IN_FLIGHT} at a time, to the house writer behind a cache.\n",
        highlight=False,
    )
    played, wall_s = through_gateway(asked, folder, model, console)
    story = told(
        folder / "ledger.db",
        title=f"City guide, {data.name}" if data else "City guide",
        examples=examples(played),
        num_distinct=num_distinct(asked),
        num_errors=sum(bool(one.error) for one in played),
        wall_s=wall_s,
    )
    console.print(table(story, console.width))
    console.print(f"[dim]{story.priced_as}[/]", highlight=False)
    print_errors(played, folder / "serve.log", console)
    if texts:
        print_score(played, texts, console)
    else:
        print_meaning(folder, model, num // 2, seed, console)
        print_campaign(folder, model, story, console)
        print_specialist(folder, model, num // 4, seed, console)
    page = folder / "descents.html"
    page.write_text(picture.page(story, foot(seed, wall_s, num)), encoding="utf-8")
    console.print(f"\n{num / wall_s:,.0f} requests a second, {wall_s:.1f} s. The picture:", highlight=False)
    console.print(str(page), soft_wrap=True, markup=False)
    return Shown(page, story.num_errors)


def through_gateway(asked: list[Ask], folder: Path, model: Path, console: Console) -> tuple[list[Played], float]:
    """Start the gateway, play, stop it; the replies in order, and the seconds that playing took."""
    tables = writer_table(model), capture_table(folder)
    with gateway(folder, "house-writer", *tables) as place, watched(len(asked), console) as tell:
        started_s = perf_counter()
        played = play(asked, place, tell)
        return played, perf_counter() - started_s


def examples(played: list[Played]) -> tuple[Example, ...]:
    """A few answers as readers saw them: from every step in turn, of questions with many facts first, none twice."""
    steps: dict[str, list[Played]] = {one.step: [] for one in played if not one.error}
    shown: set[str] = set()
    for one in sorted(played, key=lambda one: -one.ask.mr.count("[")):
        found = steps.get(one.step, [])
        if not one.error and one.ask.mr not in shown and len(found) < NUM_EXAMPLES:
            found.append(one)
            shown.add(one.ask.mr)
    turns = [one for turn in zip_longest(*steps.values()) for one in turn if one]
    return tuple(Example(one.ask.mr, one.text, one.step, one.seconds) for one in turns[:NUM_EXAMPLES])


def print_errors(played: list[Played], log: Path, console: Console) -> None:
    """Say what went wrong and how often; nothing where nothing did."""
    counts = Counter(one.error for one in played if one.error)
    for error, num in counts.most_common(NUM_ERRORS_SHOWN):
        console.print(f"{num:,} not answered: {error}", style="red", markup=False, highlight=False)
    if counts:
        console.print(f"The gateway's log: {log}", style="red", markup=False, highlight=False, soft_wrap=True)


def print_score(played: list[Played], texts: dict[str, list[str]], console: Console) -> None:
    """Score the first text that was served for each input."""
    said: dict[str, str] = {}
    for one in played:
        if not one.error:
            said.setdefault(one.ask.mr, one.text)
    if not said:
        console.print("[red]no text was served: nothing to score[/]")
        return
    console.print(f"What was served for {len(said):,} of {len(texts):,} inputs:\n")
    for line in score.lines(score.score(said, texts), score.human(texts)):
        console.print(line, markup=False, highlight=False)


def print_meaning(folder: Path, model: Path, num: int, seed: int, console: Console) -> None:
    """Ask the same city in people's own words."""
    console.print(f"\nThe same city, {num:,} questions in people's own words: the cache by meaning.\n", highlight=False)
    meaning.show(meaning.played(folder / "meaning", model, num, seed, console), console)


def print_campaign(folder: Path, model: Path, story: Story, console: Console) -> None:
    """Run the campaign for a million readers, priced as the requests before were."""
    console.print("\nThe same city, batch-based: texts written once, filled for a million readers.\n", highlight=False)
    told_ = campaign.played(folder, model)
    if told_ is not None:
        campaign.show(told_, story.total.large_usd / max(1, story.total.num), story.priced_as, console)


def print_specialist(folder: Path, model: Path, num: int, seed: int, console: Console) -> None:
    """Let the student that ships answer another city, if it is there, and is good enough."""
    student = specialist.student_file()
    if student is not None:
        console.print(
            f"\nAnother city, {num:,} requests: a student of the house writer answers first.\n", highlight=False
        )
        specialist.show(specialist.played(folder, model, student, console, num=num, seed=seed), console)


def foot(seed: int, wall_s: float, num: int) -> str:
    """How, when and where it was measured."""
    return (
        f"Measured {datetime.now().astimezone():%Y-%m-%d %H:%M} by stepwell demo {stepwell.__version__}, seed {seed}: "
        f"{num / wall_s:,.0f} requests a second over HTTP on loopback, {NUM_IN_FLIGHT} in flight, gateway, model and "
        f"readers together on {os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()})."
    )
