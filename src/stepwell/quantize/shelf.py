"""Matrices on their grids, each coded once by each rule: what sensitivity, repair and search try over and over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stepwell.errors import DistillError
from stepwell.quantize.apply import coded
from stepwell.quantize.curvature import Calibration
from stepwell.quantize.formats import FORMATS, PLAIN
from stepwell.quantize.grids import Coded
from stepwell.quantize.network import Network, matrices
from stepwell.quantize.recipe import Recipe, Rule, chosen

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass
class Shelf:
    """What a model's matrices become by rules. Keeps a byte a weight for every rule that was tried."""

    weights: Mapping[str, Tensor]
    """By short name, in 32 bits, as the parent has them."""
    calibration: Calibration | None
    made: dict[tuple[str, str, str], Coded] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and width of every matrix."""
        return {name: (weight.shape[0], weight.shape[1]) for name, weight in self.weights.items()}

    def coded(self, name: str, rule: Rule) -> Coded:
        """A matrix by a rule. Raises DistillError where that does not fit, or changes other matrices as well."""
        if rule.method == "scale":
            raise DistillError("scale moves factors between matrices: none can be tried alone, apply the whole recipe")
        key = (name, rule.format, rule.method)
        if key not in self.made:
            found = coded(name, self.weights[name], rule, self.calibration)
            self.made[key] = Coded(found.grid, found.codes.to(torch.int8))
        kept = self.made[key]
        return Coded(kept.grid, kept.codes.float())

    def weight(self, name: str, rule: Rule) -> Tensor:
        """(rows, width) float32: what the engine will compute with."""
        if rule.format in PLAIN:
            return self.weights[name].to(DTYPES[rule.format]).float()
        return self.coded(name, rule).decoded()

    def all(self, recipe: Recipe) -> dict[str, Tensor]:
        """Every matrix by a recipe. Raises DistillError where it does not fit."""
        rules = chosen(recipe, self.shapes)
        return {name: self.weight(name, rule) for name, rule in rules.items()}

    def fitting(self, name: str, formats: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the formats that a matrix's rows fit; 16 bits where none does."""
        width = self.weights[name].shape[1]
        return tuple(each for each in formats if each in PLAIN or FORMATS[each].fits(width)) or ("F16",)


def shelf(network: Network, calibration: Calibration | None) -> Shelf:
    """An empty one for a model."""
    weights = {name: weight.detach().float().clone() for name, weight in matrices(network).items()}
    return Shelf(weights, calibration)
