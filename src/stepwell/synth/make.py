"""All rows of a recipe before they are filtered: people's, drawn ones, recombined ones, grown ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence

from stepwell.synth import slots
from stepwell.synth.complete import completed
from stepwell.synth.generator import Paid
from stepwell.synth.grow import grown
from stepwell.synth.recipe import FACTS, JSON, Recipe, blanks
from stepwell.synth.recombine import recombined
from stepwell.synth.row import Row, made
from stepwell.synth.samplers import LEAF, sampled
from stepwell.synth.sources import real_rows

Open = Callable[[], Paid]
"""Opens the generator: engines belong to the event loop in which they are asked."""


def make(recipe: Recipe, open_: Open | None) -> list[Row]:
    """Every row, completed where there is a generator; one that could not be made right carries its fault.

    Raises BudgetReached (what was paid is kept: the next run goes on), EngineError, StoreError, DistillError.
    """
    real = real_rows(recipe)
    rows = [*real, *drawn(recipe), *mixed(recipe, real)]
    return asyncio.run(generated(recipe, rows, real, open_)) if open_ else rows


def drawn(recipe: Recipe) -> list[Row]:
    """The prompts that the samplers write."""
    synth = recipe.synth
    if synth.sampled is None:
        return []
    return [
        made(
            prompt_of(synth.prompt, values),
            "",
            source="sampled",
            licence=synth.licence,
            slots=values,
            seed=seed,
            params={"prompt": synth.prompt},
            generation=1,
        )
        for values, seed in sampled(synth.drawn, synth.sampled.rows, synth.seed)
    ]


def prompt_of(text: str, values: Mapping[str, str]) -> str:
    """A prompt with its slots filled in; one that is not there is nothing."""
    filled = dict(values)
    if names := set(blanks(text)) & {FACTS, JSON}:
        own = {name: value for name, value in values.items() if name != LEAF and f"{{{name}}}" not in text}
        filled |= {name: slots.write(own, "json" if name == JSON else "brackets") for name in names}
    return re.sub(r"\{([^\W\d_][\w .-]*)\}", lambda found: filled.get(found[1], ""), text).strip()


def mixed(recipe: Recipe, real: Sequence[Row]) -> list[Row]:
    """The prompts that are recombined of real ones."""
    synth = recipe.synth
    if synth.recombined is None:
        return []
    return recombined(real, synth.recombined.rows, licence=synth.licence, seed=synth.seed)


async def generated(recipe: Recipe, rows: Sequence[Row], real: Sequence[Row], open_: Open) -> list[Row]:
    """The rows with the grown ones, all completed."""
    synth = recipe.synth
    paid = open_()
    try:
        new = await grown(paid, real, synth.grown, licence=synth.licence, seed=synth.seed) if synth.grown else []
        everything = [*rows, *new]
        bare = [row for row in everything if not row.completion and not row.filters]
        done = await completed(paid, bare) if bare else []
    finally:
        await paid.teacher.engine.close()
    return [row for row in everything if row.completion or row.filters] + done
