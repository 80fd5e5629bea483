"""A recipe, applied to a model: every matrix that it names on its grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from stepwell.quantize import gptq
from stepwell.quantize.calibrate import Tokens, measured
from stepwell.quantize.curvature import Calibration
from stepwell.quantize.formats import PLAIN, format_of
from stepwell.quantize.grids import Coded, fit
from stepwell.quantize.network import Network, check_numbers, matrices, swapped
from stepwell.quantize.recipe import Recipe, Rule, chosen
from stepwell.quantize.rounding import TRIES, clipped, nearest
from stepwell.quantize.scaling import Scaled, scaled

BLIND = {"round", "qat"}
"""Methods that need no texts."""


@torch.no_grad()
def applied(
    network: Network,
    recipe: Recipe,
    batches: Sequence[Tokens],
    *,
    calibration: Calibration | None = None,
    again: int = 0,
    watch: Callable[[str], None] | None = None,
) -> dict[str, Coded]:
    """Every matrix that the recipe gives a format of blocks, by short name. The network is as it was afterwards.

    What the matrices read is measured once, in the parent, and `again` so often on the way, with those in place that
    are done: a tenth nearer at 2 bits, for as many passes more. `watch` is told the name of each that is done. Raises
    DistillError for a format that does not fit, or for weights that are no numbers.
    """
    weights = {name: weight.detach().float() for name, weight in matrices(network).items()}
    rules = chosen(recipe, {name: tuple(weight.shape) for name, weight in weights.items()})
    rules = {name: rule for name, rule in rules.items() if rule.format not in PLAIN}
    asks = any(rule.method not in BLIND for rule in rules.values())
    made: dict[str, Coded] = {}
    for part in parts(rules, again + 1 if asks else 1):
        if asks and (made or calibration is None):
            with swapped(network, {name: each.decoded() for name, each in made.items()}):
                calibration = measured(network, batches)
        ready = Scaled(weights, calibration) if calibration is None else scaled(network, weights, part, calibration)
        for name, rule in part.items():
            made[name] = coded(name, ready.weights[name], rule, ready.calibration)
            if watch is not None:
                watch(name)
    return made


def parts(rules: Mapping[str, Rule], num: int) -> list[dict[str, Rule]]:
    """The rules in so many parts, in the model's order; the embedding, whose errors reach everything, in the first."""
    names = list(rules)
    size = max(1, -(-len(names) // num))
    return [{name: rules[name] for name in names[at : at + size]} for at in range(0, len(names), size)]


def coded(name: str, weight: Tensor, rule: Rule, calibration: Calibration | None) -> Coded:
    """One matrix by its rule. Raises DistillError for weights that are no numbers."""
    check_numbers(name, weight)
    format_ = format_of(rule.format)
    if rule.method in BLIND or calibration is None:
        return nearest(weight, format_)
    weights = calibration.weights(name)
    if rule.method == "gptq":
        grid = fit(format_, weight, weights, tries=TRIES)
        return gptq.solved(weight, grid, calibration.terms[name], calibration.own.get(name))
    return clipped(weight, format_, weights)
