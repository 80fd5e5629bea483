"""The filters in their order, cheap ones first: what stays, what dies of what, and the funnel."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from time import process_time
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from stepwell.errors import ConfigError, DistillError
from stepwell.quality.judge import Embed
from stepwell.quality.verify import verifier
from stepwell.synth import filters, round_trip
from stepwell.synth.filters import KEPT, Deaths, Filter
from stepwell.synth.generator import Paid
from stepwell.synth.judged import judged
from stepwell.synth.make import Open
from stepwell.synth.meaning import same_meaning
from stepwell.synth.recipe import Recipe
from stepwell.synth.row import Row
from stepwell.synth.samplers import possible
from stepwell.synth.sources import held_out

MAX_EXAMPLES = 3


class Dead(Row, frozen=True, kw_only=True):
    """A row that did not stay, and why."""

    rejected_by: str
    reason: str


class Passed(Struct, frozen=True):
    """One filter's work."""

    filter: str
    before: int
    after: int
    cpu_s: float
    usd: float = 0.0
    """What a model was paid to look at the rows, in this run or an earlier one."""

    @property
    def died(self) -> int:
        """Rows that it took out."""
        return self.before - self.after


class Sifted(Struct, frozen=True):
    """What stays, what died, and how many were left after each filter."""

    rows: list[Row]
    dead: list[Dead]
    funnel: list[Passed]


class Tools(Struct, frozen=True):
    """What some filters need beside the rows: a generator, an embedder, a model's perplexities."""

    open: Open | None = None
    embed: Callable[[], Embed] | None = None
    perplexity: filters.Perplexity | None = None


def sift(recipe: Recipe, rows: Sequence[Row], tools: Tools | None = None) -> Sifted:
    """Put rows through the recipe's filters. Each row that stays says so of each filter; so does one that died.

    Raises DistillError where nothing stays or a quota cannot be met; BudgetReached, EngineError, ConfigError.
    """
    staying, dead, funnel = list(rows), list[Dead](), list[Passed]()
    spent: list[float] = []
    for name, filter_ in chain(recipe, noting(tools or Tools(), spent)):
        start = process_time()
        spent.clear()
        died = filter_(staying)
        dead += [dead_of(staying[at], name, why) for at, why in sorted(died.items())]
        num_before = len(staying)
        staying = [kept_by(row, name) for at, row in enumerate(staying) if at not in died]
        funnel.append(Passed(name, num_before, len(staying), process_time() - start, sum(spent)))
    if not staying:
        raise DistillError(f"no row stays: {reasons(dead)}" if dead else "there is no row to begin with")
    made = [row for row in dead if not row.is_real]
    if made and all(row.is_real for row in staying):
        raise DistillError(f"only people's rows stay; of {len(made)} made ones died {reasons(made)}")
    return Sifted(staying, dead, funnel)


def noting(tools: Tools, spent: list[float]) -> Tools:
    """The same tools, which note what answers cost."""
    open_ = tools.open
    return replace(tools, open=lambda: replace(open_(), note=spent.append)) if open_ else tools


def kept_by(row: Row, name: str) -> Row:
    """The row with the filter's verdict."""
    return replace(row, filters={**row.filters, name: KEPT})


def dead_of(row: Row, name: str, why: str) -> Dead:
    """The row with its death."""
    return Dead(**{**asdict(row), "filters": {**row.filters, name: why}}, rejected_by=name, reason=why)


def reasons(dead: Sequence[Dead]) -> str:
    """What rows died of, most of them first, each with an example."""
    by = Counter(row.rejected_by for row in dead).most_common(MAX_EXAMPLES)
    example = {row.rejected_by: row.reason for row in reversed(dead)}
    return "; ".join(f"{num} by {name} ({example[name]})" for name, num in by)


def chain(recipe: Recipe, tools: Tools) -> Iterator[tuple[str, Filter]]:
    """The recipe's filters by name, in order."""
    synth, given = recipe.synth, recipe.synth.filters
    yield "made", filters.made_right
    yield "generation", filters.young(synth.max_generation)
    if given.schema:
        yield "schema", filters.known_slots(synth)
    yield "answer", filters.answers(given)
    if given.verify:
        yield "verify", filters.verified(verifier(given.verify, field="synth.filters.verify"))
    yield "exact", filters.exact
    if given.near:
        yield "near", filters.near(given.near, given.near_words)
    if synth.held_out:
        yield "leaks", filters.not_leaking(list(held_out(recipe)), given.leak_words)
    yield "words", filters.long_enough(*given.words)
    if given.perplexity:
        yield "perplexity", filters.unsurprising(*given.perplexity, tools.perplexity)
    if given.round_trip:
        yield "round_trip", reread(given.round_trip, tools)
    if given.judge:
        yield "judge", by_judge(given.judge, tools)
    if given.meaning:
        yield "meaning", by_meaning(given.meaning, tools)
    if synth.quota:
        slot = synth.drawn.get(synth.quota.by)
        yield "quota", filters.within(synth.quota, (possible(slot) or ()) if slot else ())
    yield "floor", filters.grounded(synth.real_floor)


def reread(name: str, tools: Tools) -> Filter:
    """The round trip that a recipe names."""
    if name == "values":
        return round_trip.by_values
    if name == "model":
        return lambda rows: asked(tools, lambda paid: round_trip.by_model(rows, needed(paid)))
    return round_trip.by_yours(name)


def by_judge(name: str, tools: Tools) -> Filter:
    """The judge that a recipe names."""
    embed = tools.embed if "agreement" in name.split("+") else None
    return lambda rows: asked(tools, lambda paid: judged(rows, name, paid, embed() if embed else None))


def by_meaning(threshold: float, tools: Tools) -> Filter:
    """Duplicates by embedding."""
    if tools.embed is None:
        raise ConfigError("needs an embedder: pip install 'stepwell[cache]'", field="synth.filters.meaning")
    embed = tools.embed
    return lambda rows: asyncio.run(same_meaning(rows, threshold, embed()))


def asked(tools: Tools, work: Callable[[Paid | None], Coroutine[Any, Any, Deaths]]) -> Deaths:
    """Work with an open generator, which is closed afterwards."""

    async def run() -> Deaths:
        paid = tools.open() if tools.open else None
        try:
            return await work(paid)
        finally:
            if paid:
                await paid.teacher.engine.close()

    return asyncio.run(run())


def needed(paid: Paid | None) -> Paid:
    """The generator. Raises ConfigError where there is none."""
    if paid is None:
        raise ConfigError("model needs [synth.generator]", field="synth.filters")
    return paid
