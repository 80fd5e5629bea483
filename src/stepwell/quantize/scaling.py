"""Scaled inputs (AWQ, Lin et al. 2023): columns that matter get finer steps, and the layer before makes good for it.

Only what is exact without touching anything but matrices: the rows of `up_proj` are divided by what the columns of
`down_proj` are multiplied by. What is between them, a product with the gate, does not mind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepwell.quantize.curvature import Calibration, Term
from stepwell.quantize.formats import format_of
from stepwell.quantize.network import Network, short
from stepwell.quantize.recipe import Rule
from stepwell.quantize.rounding import clipped

POWERS = tuple(step / 10 for step in range(10))
"""Of the mean inputs: 0 is no scaling."""


@dataclass(frozen=True)
class Scaled:
    """Weights that compute the same together, and what is known of their inputs now."""

    weights: dict[str, Tensor]
    calibration: Calibration | None


def scaled(network: Network, weights: dict[str, Tensor], rules: Mapping[str, Rule], known: Calibration) -> Scaled:
    """Scale every `down_proj` that a rule says so of, where its `up_proj` is written as well."""
    weights, terms = dict(weights), dict(known.terms)
    for name, rule in rules.items():
        before = name.replace("down_proj", "up_proj")
        if rule.method != "scale" or before == name or before not in rules or biased(network, before):
            continue
        factors = searched(weights[name], rule, known.weights(name))
        weights[before], weights[name] = weights[before] / factors[:, None], weights[name] * factors
        terms[name] = tuple(Term(term.rows, term.columns / factors / factors[:, None]) for term in terms[name])
        terms[before] = tuple(stretched(term, factors) for term in terms[before])
    return Scaled(weights, replace(known, terms=terms))


def searched(weight: Tensor, rule: Rule, costs: Tensor) -> Tensor:
    """(width): of powers of what the inputs weigh, the one after which rounding costs least."""
    size = costs.mean(0).sqrt().clamp(min=1e-12)
    tried = [(size / size.log().mean().exp()) ** power for power in POWERS]
    losses = torch.stack([cost(weight, rule, costs, factors) for factors in tried])
    return tried[int(losses.argmin())]


def cost(weight: Tensor, rule: Rule, costs: Tensor, factors: Tensor) -> Tensor:
    """What rounding with these factors costs."""
    there, price = weight * factors, costs / factors.square()
    return ((clipped(there, format_of(rule.format), price).decoded() - there).square() * price).sum()


def stretched(term: Term, factors: Tensor) -> Term:
    """A term of a matrix whose rows are divided by factors: its errors count so much more."""
    rows = term.rows * factors * factors[:, None] if term.coupled else term.rows * factors.square()
    return Term(rows, term.columns)


def biased(network: Network, name: str) -> bool:
    """Whether a layer has a bias, which would have to be scaled as well."""
    bias = name.removesuffix("weight") + "bias"
    return any(short(each) == bias for each, _ in network.module.named_parameters())
