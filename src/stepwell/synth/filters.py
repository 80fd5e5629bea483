"""What a row may die of without a model being asked: each filter says, by place, which rows die and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from math import floor

import numpy as np

from stepwell.errors import DistillError
from stepwell.quality.verify import Verify
from stepwell.synth import samplers, slots
from stepwell.synth.leaks import Pair, leaks
from stepwell.synth.minhash import twins
from stepwell.synth.ngrams import split
from stepwell.synth.perplexity import Ngrams
from stepwell.synth.recipe import Filters, Quota, Synth
from stepwell.synth.reply import no_answer
from stepwell.synth.row import Row

Deaths = Mapping[int, str]
"""The reason by the place of a row that dies."""
Filter = Callable[[Sequence[Row]], Deaths]
Perplexity = Callable[[Sequence[str]], Sequence[float]]
KEPT = "kept"
MIN_REAL = 50
"""Fewer people's texts say nothing about what is usual."""


def made_right(rows: Sequence[Row]) -> Deaths:
    """Rows with a fault from their making: not answered, or too like another prompt."""
    faults = ((at, next((why for why in row.filters.values() if why != KEPT), "")) for at, row in enumerate(rows))
    return {at: why for at, why in faults if why}


def young(most: int) -> Filter:
    """Rows that too many models stand behind (Shumailov et al. 2024)."""
    return lambda rows: {
        at: f"generation {row.generation}, and {most} is the last"
        for at, row in enumerate(rows)
        if row.generation > most
    }


def known_slots(synth: Synth) -> Filter:
    """Made prompts whose slots nobody knows, or have no value, or one that is not among the slot's choices."""
    drawn = synth.drawn
    closed = {name: samplers.possible(slot) for name, slot in drawn.items() if not slot.parts}

    def deaths(rows: Sequence[Row]) -> Deaths:
        real: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            for name, value in row.slots.items() if row.is_real else ():
                real[name].add(str(value))
        found: dict[int, str] = {}
        for at, row in enumerate(rows):
            for name, value in row.slots.items() if not row.is_real and (drawn or real) else ():
                allowed = closed.get(name)
                if name not in drawn and name not in real:
                    found[at] = f"no slot {name!r}"
                elif not str(value).strip():
                    found[at] = f"{name} is empty"
                elif allowed is not None and str(value) not in allowed | real[name]:
                    found[at] = f"{name} is never {value!r:.40}"
        return found

    return deaths


def answers(wanted: Filters) -> Filter:
    """Completions that are refusals, or surely in another language."""
    return each_completed(lambda row: no_answer(row.completion, wanted))


def verified(verify: Verify) -> Filter:
    """Completions that do not say what their prompt asks for."""
    return each_completed(lambda row: "; ".join(verify(row.prompt, row.completion)))


def long_enough(fewest: int, most: int) -> Filter:
    """Completions of too few or too many words."""

    def why(row: Row) -> str:
        num = len(split(row.completion))
        return "" if fewest <= num <= most else f"{num} words, and {fewest} to {most} may be"

    return each_completed(why)


def each_completed(why: Callable[[Row], str]) -> Filter:
    """A filter that looks at one completed row at a time; rows that wait for their completion pass."""

    def deaths(rows: Sequence[Row]) -> Deaths:
        found = ((at, why(row)) for at, row in enumerate(rows) if row.completion)
        return {at: reason for at, reason in found if reason}

    return deaths


def exact(rows: Sequence[Row]) -> Deaths:
    """Rows with prompt and completion of an earlier one, white space aside."""
    first: dict[tuple[str, str], Row] = {}
    found: dict[int, str] = {}
    for at, row in enumerate(rows):
        key = " ".join(row.prompt.split()), " ".join(row.completion.split())
        if key in first:
            found[at] = f"the same as {first[key].id}"
        first.setdefault(key, row)
    return found


def near(threshold: float, num_words: int) -> Filter:
    """Near duplicates of earlier rows; prompts of slots are no texts, and differ where their slots do."""

    def deaths(rows: Sequence[Row]) -> Deaths:
        texts = {at: text for at, row in enumerate(rows) if (text := text_of(row))}
        places = list(texts)
        found = twins(list(texts.values()), threshold=threshold, n=num_words)
        return {
            places[at]: f"{twin.similarity:.2f} like {rows[places[twin.of]].id}" for at, twin in sorted(found.items())
        }

    return deaths


def text_of(row: Row) -> str:
    """What of a row is compared with others."""
    return row.completion if slots.read(row.prompt) else f"{row.prompt}\n{row.completion}".strip()


def not_leaking(held_out: Sequence[Pair], num_words: int) -> Filter:
    """Rows that hold something of an evaluation set."""

    def deaths(rows: Sequence[Row]) -> Deaths:
        found = leaks([(row.prompt, row.completion) for row in rows], held_out, n=num_words)
        return {at: leak.what for at, leak in found.items()}

    return deaths


def unsurprising(low: float, high: float, scores: Perplexity | None) -> Filter:
    """Completions whose perplexity lies outside the quantiles of people's; by `scores`, else by their own words.

    People's texts are scored by a model of the other half of them. Raises DistillError where they are too few.
    """

    def deaths(rows: Sequence[Row]) -> Deaths:
        done = [at for at, row in enumerate(rows) if row.completion]
        real = [at for at in done if rows[at].is_real]
        if len(real) < MIN_REAL:
            what = f"synth.filters.perplexity: {len(real)} completions of people are too few to know what is usual"
            raise DistillError(f"{what}: add real rows up to {MIN_REAL}, or leave it out")
        told = scored(rows, done, scores)
        least, most = np.quantile([told[at] for at in real], [low, high])
        return {
            at: f"perplexity {told[at]:.3g}, and {least:.3g} to {most:.3g} is usual"
            for at in done
            if not least <= told[at] <= most
        }

    return deaths


def scored(rows: Sequence[Row], done: Sequence[int], scores: Perplexity | None) -> dict[int, float]:
    """The perplexity of each completed row."""
    if scores is not None:
        return dict(zip(done, map(float, scores([rows[at].completion for at in done])), strict=True))
    real = [at for at in done if rows[at].is_real]
    halves = real[::2], real[1::2]
    made = [at for at in done if not rows[at].is_real]
    told: dict[int, float] = {}
    for learned, asked in ((halves[0], halves[1]), (halves[1], halves[0]), (real, made)):
        model = Ngrams([rows[at].completion for at in learned])
        found = model.perplexities([rows[at].completion for at in asked])
        told |= dict(zip(asked, found.tolist(), strict=True))
    return told


def within(quota: Quota, leaves: Collection[str]) -> Filter:
    """Rows above what their leaf may have, last ones first. Raises DistillError where one of the leaves has too few."""

    def deaths(rows: Sequence[Row]) -> Deaths:
        num: Counter[str] = Counter(dict.fromkeys([*leaves, *quota.rows], 0))
        found: dict[int, str] = {}
        for at, row in enumerate(rows):
            leaf = str(row.slots.get(quota.by, ""))
            most = quota.rows.get(leaf, quota.most)
            if leaf and most is not None and num[leaf] >= most:
                found[at] = f"{quota.by} {leaf!r} has its {most} rows"
            elif leaf:
                num[leaf] += 1
        if short := sorted(leaf for leaf in num if num[leaf] < quota.least):
            told = ", ".join(f"{leaf!r} has {num[leaf]}" for leaf in short)
            raise DistillError(f"synth.quota.least: {quota.least} rows are wanted of each {quota.by}, and {told}")
        return found

    return deaths


def grounded(real_floor: float) -> Filter:
    """Synthetic rows above what the real ones carry, taken evenly from all of them.

    Rows of people that stay with the synthetic ones bound the error of models trained on it (Gerstgrasser et al. 2024).
    """

    def deaths(rows: Sequence[Row]) -> Deaths:
        made = [at for at, row in enumerate(rows) if not row.is_real]
        num_real = len(rows) - len(made)
        allowed = floor(num_real * (1 - real_floor) / real_floor + 1e-9) if real_floor else len(made)
        num = min(allowed, len(made))
        staying = {made[at * len(made) // num] for at in range(num)}
        why = f"{num_real} real rows carry {allowed} synthetic ones at a floor of {real_floor:.0%}"
        return {at: why for at in made if at not in staying}

    return deaths
