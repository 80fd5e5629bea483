"""Which matrix gets which format: the smallest sum of losses for a budget, exactly (a multiple-choice knapsack).

Matrices are added one by one; of all partial choices only those stay that none beats in both cost and loss, and that a
Lagrangian bound lets still win (Sinha and Zoltners 1979; Kellerer, Pferschy and Pisinger 2004, chapter 11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.errors import DistillError

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
HALVINGS = 60
"""Of the price of a unit: more than a float has digits."""
SLACK = 1e-12
"""Relative: sums in another order differ by so much."""


class Choice(Struct, frozen=True):
    """One format for one matrix: what it costs (bytes, nanoseconds) and what it loses (nats a token)."""

    format: str
    cost: int
    loss: float


@dataclass(frozen=True)
class Partial:
    """Choices for the first matrices that nothing beats, by rising cost: their sums, and where each came from."""

    cost: Whole
    loss: Numbers
    before: Whole
    """Which partial choice of one matrix fewer."""
    chosen: Whole
    """Which choice of the last matrix."""


def allocated(choices: Mapping[str, Sequence[Choice]], budget: int, *, unit: str = "bytes") -> dict[str, Choice]:
    """The choice of every matrix with the smallest sum of losses within the budget; of equal ones the cheapest.

    Raises DistillError where even the cheapest choices cost more, with what they cost.
    """
    sound = {name: unbeaten(each) for name, each in choices.items()}
    least = sum(each[0].cost for each in sound.values())
    if least > budget:
        raise DistillError(f"the smallest formats take {least:,} {unit}, and the budget is {budget:,}: raise it")
    if not sound:
        return {}
    names = sorted(sound, key=lambda name: sound[name][0].loss - sound[name][-1].loss, reverse=True)
    picked = exact([sound[name] for name in names], budget)
    found = dict(zip(names, picked, strict=True))
    return {name: found[name] for name in choices}


def unbeaten(choices: Sequence[Choice]) -> list[Choice]:
    """Choices by rising cost and falling loss. Raises DistillError where there is none."""
    kept: list[Choice] = []
    for each in sorted(choices, key=lambda choice: (choice.cost, choice.loss)):
        if not kept or each.loss < kept[-1].loss:
            kept.append(each)
    if not kept:
        raise DistillError("a matrix has no format that fits: give it one")
    return kept


def exact(groups: Sequence[Sequence[Choice]], budget: int) -> list[Choice]:
    """The best choice of each group, by rising partial choices."""
    costs = [np.array([each.cost for each in group], np.int64) for group in groups]
    losses = [np.array([each.loss for each in group]) for group in groups]
    price, most = bound(costs, losses, budget)
    least = behind([int(each.min()) for each in costs])
    priced = behind([float((loss + price * cost).min()) for cost, loss in zip(costs, losses, strict=True)])
    begun = np.zeros(1, np.int64)
    steps = [Partial(begun, np.zeros(1), begun, begun)]
    for at, (cost, loss) in enumerate(zip(costs, losses, strict=True), 1):
        now = extended(steps[-1], cost, loss)
        hope = now.loss + price * (now.cost - budget) + priced[at]
        steps.append(rid(now, (now.cost + least[at] <= budget) & (hope <= most + SLACK * (1 + abs(most)))))
    return traced(steps, groups)


def behind(values: Sequence[float]) -> list[float]:
    """Sums of all values from each place on, 0 at the end."""
    return [sum(values[at:]) for at in range(len(values) + 1)]


def extended(partial: Partial, cost: Whole, loss: Numbers) -> Partial:
    """Every partial choice with every choice of one more matrix, those that are beaten left out."""
    costs, losses = (partial.cost[:, None] + cost).ravel(), (partial.loss[:, None] + loss).ravel()
    order = np.lexsort((losses, costs))
    falling = np.minimum.accumulate(losses[order])
    kept = order[np.concatenate(([True], falling[1:] < falling[:-1]))]
    return Partial(costs[kept], losses[kept], kept // len(cost), kept % len(cost))


def rid(partial: Partial, kept: NDArray[np.bool_]) -> Partial:
    """Only some of them."""
    return Partial(partial.cost[kept], partial.loss[kept], partial.before[kept], partial.chosen[kept])


def traced(steps: Sequence[Partial], groups: Sequence[Sequence[Choice]]) -> list[Choice]:
    """The choices that led to the last, which is the one with the smallest loss."""
    at, found = len(steps[-1].cost) - 1, []
    for step, group in zip(reversed(steps[1:]), reversed(groups), strict=True):
        found.append(group[int(step.chosen[at])])
        at = int(step.before[at])
    return found[::-1]


def bound(costs: Sequence[Whole], losses: Sequence[Numbers], budget: int) -> tuple[float, float]:
    """The price of a unit at which the budget is just spent, and the sum of losses of a choice that is within it."""
    low, high = 0.0, dearest(costs, losses)
    if spent(costs, losses, low)[0] <= budget:
        return low, spent(costs, losses, low)[1]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(costs, losses, middle)[0] > budget else (low, middle)
    return high, filled(costs, losses, high, budget)


def dearest(costs: Sequence[Whole], losses: Sequence[Numbers]) -> float:
    """A price at which nobody takes anything but the cheapest."""
    both = zip(costs, losses, strict=True)
    steepest = [float((-np.diff(loss) / np.diff(cost)).max()) for cost, loss in both if len(cost) > 1]
    return 2 * max(steepest, default=0.0)


def taken(costs: Sequence[Whole], losses: Sequence[Numbers], price: float) -> list[int]:
    """What each takes at a price."""
    return [int((loss + price * cost).argmin()) for cost, loss in zip(costs, losses, strict=True)]


def spent(costs: Sequence[Whole], losses: Sequence[Numbers], price: float) -> tuple[int, float]:
    """Cost and loss, summed, at a price."""
    picks = taken(costs, losses, price)
    cost = sum(int(each[pick]) for each, pick in zip(costs, picks, strict=True))
    return cost, sum(float(each[pick]) for each, pick in zip(losses, picks, strict=True))


def filled(costs: Sequence[Whole], losses: Sequence[Numbers], price: float, budget: int) -> float:
    """The loss of what is taken at a price, after the rest of the budget went to whoever gains most by it."""
    picks = taken(costs, losses, price)
    left = budget - sum(int(each[pick]) for each, pick in zip(costs, picks, strict=True))
    while True:
        gains = [
            (float(loss[pick] - loss[to]), at, to)
            for at, (cost, loss, pick) in enumerate(zip(costs, losses, picks, strict=True))
            for to in range(pick + 1, len(cost))
            if cost[to] - cost[pick] <= left
        ]
        if not gains:
            return sum(float(each[pick]) for each, pick in zip(losses, picks, strict=True))
        _, at, to = max(gains)
        left -= int(costs[at][to] - costs[at][picks[at]])
        picks[at] = to
