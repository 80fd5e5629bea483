"""Allocation: within the budget, as good as trying everything, never worse for a larger budget."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import DistillError
from stepwell.quantize.allocate import Choice, allocated, bound, unbeaten

Choices = Mapping[str, Sequence[Choice]]

choice = st.builds(Choice, st.just("Q"), st.integers(0, 60), st.floats(0, 1, allow_nan=False))
cases = st.dictionaries(st.sampled_from("abcde"), st.lists(choice, min_size=1, max_size=4), min_size=1)


def costs(picked: Mapping[str, Choice]) -> int:
    return sum(each.cost for each in picked.values())


def losses(picked: Mapping[str, Choice]) -> float:
    return sum(each.loss for each in picked.values())


def least(choices: Choices) -> int:
    return sum(min(each.cost for each in group) for group in choices.values())


@given(cases, st.integers(0, 200))
def test_is_within_the_budget_and_as_good_as_trying_everything(choices: Choices, more: int) -> None:
    budget = least(choices) + more
    picked = allocated(choices, budget)
    assert costs(picked) <= budget
    assert all(picked[name] in group for name, group in choices.items())
    tried = (dict(zip(choices, each, strict=True)) for each in product(*choices.values()))
    best = min(losses(each) for each in tried if costs(each) <= budget)
    assert losses(picked) == pytest.approx(best, abs=1e-12)


@given(cases, st.integers(0, 200), st.integers(0, 50))
def test_a_larger_budget_is_never_worse(choices: Choices, more: int, yet_more: int) -> None:
    budget = least(choices) + more
    assert losses(allocated(choices, budget + yet_more)) <= losses(allocated(choices, budget)) + 1e-12


@given(cases)
def test_a_budget_that_nothing_fits_says_what_the_smallest_takes(choices: Choices) -> None:
    smallest = least(choices)
    with pytest.raises(DistillError, match=f"take {smallest:,} bytes, and the budget is"):
        allocated(choices, smallest - 1)
    assert costs(allocated(choices, smallest)) == smallest


def test_a_matrix_without_a_format_is_named_as_wrong() -> None:
    with pytest.raises(DistillError, match="no format"):
        allocated({"a": []}, 10)


def test_what_is_beaten_is_never_taken() -> None:
    group = [Choice("Q8_0", 34, 0.0), Choice("Q4_0", 18, 0.2), Choice("Q4_K", 18, 0.1), Choice("Q5_1", 24, 0.15)]
    assert [each.format for each in unbeaten(group)] == ["Q4_K", "Q8_0"]


def layered(num_layers: int, seed: int) -> Choices:
    """A large model's table, as it looks: seven shapes a layer, eight formats, losses that fall with the bits."""
    chance = random.Random(seed)
    shapes = [4096 * 4096, 4096 * 1024, 4096 * 1024, 4096 * 4096, 4096 * 14336, 4096 * 14336, 14336 * 4096]
    widths = {"Q2_K": 2.625, "Q3_K": 3.4375, "Q4_0": 4.5, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625, "Q8_0": 8.5}
    return {
        f"layers.{layer}.{at}": [
            Choice(name, int(size * bits / 8), chance.uniform(0.5, 2) * size / 1e8 * 4.0**-bits)
            for name, bits in widths.items()
        ]
        for layer in range(num_layers)
        for at, size in enumerate(shapes)
    }


@pytest.mark.parametrize("bits", [2.7, 3.6, 4.4, 6.0])
def test_a_large_model_comes_within_a_hair_of_what_fractions_of_formats_would_give(bits: float) -> None:
    choices = layered(64, 1)
    groups = [unbeaten(group) for group in choices.values()]
    budget = int(sum(group[-1].cost for group in groups) / 8.5 * bits)
    picked = allocated(choices, budget)
    assert costs(picked) <= budget
    price, _ = bound(
        [np.array([e.cost for e in g]) for g in groups], [np.array([e.loss for e in g]) for g in groups], budget
    )
    floor = sum(min(each.loss + price * each.cost for each in group) for group in groups) - price * budget
    assert floor * (1 - 1e-9) <= losses(picked) <= floor * 1.001
