"""What a recipe will make and may cost, before anything is paid: rows, calls, and the most they can cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from stepwell.synth import grow, round_trip
from stepwell.synth.complete import body_for
from stepwell.synth.generator import Paid, keys
from stepwell.synth.make import drawn, mixed
from stepwell.synth.recipe import Recipe
from stepwell.synth.row import Row
from stepwell.synth.sources import real_rows

VERDICT_CALLS = 2
"""The model that judges is asked twice, with the answers in turned order."""
VERDICT_BYTES = 1200
"""Of the question that it is asked, beside the texts."""


class Line(Struct, frozen=True):
    """Rows of one source, or calls of one kind."""

    what: str
    rows: int = 0
    calls: int = 0
    """Still to be paid."""
    answered: int = 0
    """Paid for in an earlier run."""
    most_usd: float = 0.0
    """No token is shorter than a byte, no answer longer than max_tokens."""
    exact: bool = True
    """Whether the questions are known: what is grown is not, before it is grown."""


class Plan(Struct, frozen=True):
    """What a run will do."""

    lines: list[Line]
    spent_usd: float

    @property
    def rows(self) -> int:
        """Rows that go into the filters."""
        return sum(line.rows for line in self.lines)

    @property
    def calls(self) -> int:
        """Calls that are still to be paid."""
        return sum(line.calls for line in self.lines)

    @property
    def most_usd(self) -> float:
        """The most that these can cost."""
        return sum(line.most_usd for line in self.lines)


def plan(recipe: Recipe, paid: Paid | None) -> Plan:
    """Count rows and calls. Raises StoreError, DistillError, ConfigError, as a run would."""
    synth = recipe.synth
    real = real_rows(recipe)
    rows = [*real, *drawn(recipe), *mixed(recipe, real)]
    num = synth.generator.num if synth.generator else 1
    counts = Counter({row.source: 0 for row in rows})
    for row in rows:
        counts[row.source] += 1 if row.completion else num
    if synth.grown:
        counts["grown"] = synth.grown.rows * num
    lines = [Line(source, rows=count) for source, count in counts.items()]
    if paid is None:
        return Plan(lines, 0.0)
    bare = [row for row in rows if not row.completion]
    lines += [*growing(recipe, paid, real), completing(paid, bare), *checking(recipe, paid, sum_rows(lines))]
    return Plan([line for line in lines if line.rows or line.calls or line.answered], paid.answers.spent().usd)


def sum_rows(lines: Sequence[Line]) -> int:
    """Rows of all sources."""
    return sum(line.rows for line in lines)


def completing(paid: Paid, rows: Sequence[Row]) -> Line:
    """The calls that complete prompts which are known."""
    bodies = (body_for(paid, row, number) for row in rows for number in range(paid.section.num))
    answered, calls, most = keys(paid, bodies)
    return Line("complete", calls=calls, answered=answered, most_usd=most)


def growing(recipe: Recipe, paid: Paid, real: Sequence[Row]) -> list[Line]:
    """The calls that grow prompts, if every round brings a whole batch, and that complete them."""
    synth = recipe.synth
    if synth.grown is None:
        return []
    rounds = range(grow.num_rounds(synth.grown))
    shown = [grow.shots(real, synth.grown, synth.seed, number) for number in rounds]
    bodies = [
        grow.body_for(paid, synth.grown, parents, synth.seed + number)
        for parents, number in zip(shown, rounds, strict=True)
    ]
    answered, calls, most = keys(paid, bodies)
    num = synth.grown.rows * paid.section.num
    likely_bytes = len(bodies[0]) // max(1, synth.grown.shots) + paid.section.max_tokens
    completing_usd = num * paid.teacher.most_usd(likely_bytes)
    return [
        Line("grow", calls=calls, answered=answered, most_usd=most, exact=False),
        Line("complete grown", calls=num, most_usd=completing_usd, exact=False),
    ]


def checking(recipe: Recipe, paid: Paid, num_rows: int) -> list[Line]:
    """The calls of filters that ask a model, if every row came as far as them."""
    given, section = recipe.synth.filters, paid.section
    text_bytes = 4 * section.max_tokens
    lines = []
    if given.round_trip == "model":
        each = paid.teacher.most_usd(len(round_trip.INSTRUCTIONS) + text_bytes)
        lines.append(Line("round trip", calls=num_rows, most_usd=num_rows * each, exact=False))
    if "model" in given.judge.split("+"):
        calls = num_rows * (VERDICT_CALLS + 1)
        each = paid.teacher.most_usd(VERDICT_BYTES + 2 * text_bytes)
        lines.append(Line("judge", calls=calls, most_usd=calls * each, exact=False))
    return lines
