"""Local repair: sums of single losses overlook that errors meet; so the joint loss decides, exchange by exchange.

Around a choice every matrix is tried one format up and one down, all others as chosen. What those true losses promise
is allocated anew, and kept only where the joint loss falls; else single exchanges are tried, one up and one down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic

from msgspec import Struct

from stepwell.quantize.allocate import Choice, allocated, unbeaten
from stepwell.quantize.divergence import Divergence, Reference
from stepwell.quantize.network import Network, swapped
from stepwell.quantize.recipe import Recipe, Rule
from stepwell.quantize.resume import Past
from stepwell.quantize.sensitivity import Table, alone
from stepwell.quantize.shelf import Shelf

TRIES = 4
"""Single exchanges that are tried after an allocation that did not keep its promise."""
Picked = Mapping[str, Choice]
Watch = Callable[[str], None]


class Repaired(Struct, frozen=True):
    """What became of a recipe."""

    recipe: Recipe
    cost: int
    kl: float
    """Joint, on the rows that it was repaired on."""
    kl_before: float
    rounds: int
    """That made it better."""
    tried: int
    """Passes over the rows."""
    complete: bool
    """Whether nothing better is near; False: the time was up."""


@dataclass
class Bench:
    """Where choices are tried: the model, its matrices on the shelf, the parent's texts, and a clock."""

    network: Network
    shelf: Shelf
    reference: Reference
    table: Table
    until_s: float
    watch: Watch
    tried: int = 0

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return monotonic() >= self.until_s

    def weights(self, picked: Picked) -> dict[str, object]:
        """Every matrix as chosen."""
        return {name: self.shelf.weight(name, Rule(each.format, self.table.method)) for name, each in picked.items()}

    def joint(self, picked: Picked) -> float:
        """The divergence with all matrices as chosen."""
        self.tried += 1
        with swapped(self.network, self.weights(picked)):
            return float(self.reference.of(self.network).kl)


def repaired(
    network: Network,
    shelf: Shelf,
    reference: Reference,
    table: Table,
    picked: Picked,
    *,
    budget: int,
    cost: Callable[..., int] | None = None,
    limit_s: float = float("inf"),
    watch: Watch = lambda _: None,
) -> Repaired:
    """Make a choice within a budget better for as long as it goes, or as the time allows; never worse, never dearer.

    How far it came hangs on the time, the way does not: the same rows give the same steps.
    """
    choices = table.choices() if cost is None else table.choices(cost)
    near = {name: unbeaten(each) for name, each in choices.items()}
    bench = Bench(network, shelf, reference, table, monotonic() + limit_s, watch)
    begun = now = bench.joint(picked)
    rounds, complete = 0, False
    while not complete and not bench.late:
        tried = neighbours(bench, near, picked)
        found = None if tried is None else better(bench, tried, picked, (now, budget))
        complete = tried is not None and found is None and not bench.late
        if found is not None:
            picked, now = found
            rounds += 1
            watch(f"round {rounds}: KL {now:.3g}")
    total = sum(each.cost for each in picked.values())
    return Repaired(table.recipe(picked), total, now, begun, rounds, bench.tried, complete)


def neighbours(bench: Bench, near: Mapping[str, list[Choice]], picked: Picked) -> dict[str, list[Choice]] | None:
    """Each matrix's choice, the next dearer and the next cheaper, with true losses; None where the time was up."""
    found: dict[str, list[Choice]] = {}
    with swapped(bench.network, bench.weights(picked)):
        past = Past(bench.network)
        with past.listening():
            here: Divergence = bench.reference.of(bench.network)
        for name, each in picked.items():
            found[name] = [Choice(each.format, each.cost, here.kl)]
            for choice in beside(near[name], each):
                if bench.late:
                    return None
                weight = bench.shelf.weight(name, Rule(choice.format, bench.table.method))
                seen = alone(bench.network, bench.reference, past, (name, weight))
                bench.tried += 1
                found[name].append(Choice(choice.format, choice.cost, seen.kl))
            bench.watch(name)
    return found


def beside(choices: list[Choice], chosen: Choice) -> list[Choice]:
    """The next cheaper and the next dearer choice."""
    cheaper = [each for each in choices if each.cost < chosen.cost]
    dearer = [each for each in choices if each.cost > chosen.cost]
    return [*cheaper[-1:], *dearer[:1]]


def better(
    bench: Bench, tried: Mapping[str, list[Choice]], picked: Picked, now: tuple[float, int]
) -> tuple[dict[str, Choice], float] | None:
    """The first of the promising changes whose joint loss is smaller; None where there is none."""
    kl, budget = now
    for wanted in promising(tried, picked, budget):
        if bench.late:
            return None
        joint = bench.joint(wanted)
        if joint < kl:
            return wanted, joint
    return None


def promising(tried: Mapping[str, list[Choice]], picked: Picked, budget: int) -> Iterator[dict[str, Choice]]:
    """All that allocation would change; then single exchanges, by what they promise."""
    anew = allocated(tried, budget)
    if any(anew[name].format != picked[name].format for name in picked):
        yield anew
    for change in exchanges(tried, picked, budget)[:TRIES]:
        yield {**picked, **change}


def exchanges(tried: Mapping[str, list[Choice]], picked: Picked, budget: int) -> list[dict[str, Choice]]:
    """Changes of one matrix, or of two (one dearer, one cheaper), that the budget allows and that promise a gain."""
    left = budget - sum(each.cost for each in picked.values())
    moves = [
        (each.loss - options[0].loss, each.cost - options[0].cost, name, each)
        for name, options in tried.items()
        for each in options[1:]
    ]
    dearer, cheaper = [each for each in moves if each[1] > 0], [each for each in moves if each[1] < 0]
    singles = [(gain, {name: each}) for gain, more, name, each in moves if more <= left]
    pairs = [
        (up[0] + down[0], {up[2]: up[3], down[2]: down[3]})
        for up in dearer
        for down in cheaper
        if up[2] != down[2] and up[1] + down[1] <= left
    ]
    gains = sorted((each for each in (*singles, *pairs) if each[0] < 0), key=lambda each: each[0])
    return [change for _, change in gains]
