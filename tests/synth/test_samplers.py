"""Slots are drawn as the recipe says, the same in every run; what cannot be drawn is told."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import ConfigError, DistillError
from stepwell.synth.samplers import LEAF, Slot, check, possible, sampled, with_taxonomy

SLOTS = {
    "city": Slot(choices={"Rome": 3.0, "Oslo": 1.0}),
    "district": Slot(by="city", values={"Rome": ("Trastevere", "Monti"), "Oslo": {"Gamle Oslo": 1.0}}),
    "name": Slot(parts=(("The ", "Old "), ("Mill", "Anchor", "Heron"))),
    "stars": Slot(range=(1, 5), step=2, text="{} out of 5"),
    "dogs": Slot(choices=("yes", "no"), when={"city": ("Oslo",)}, share=0.5),
}


@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_same_seed_draws_the_same_and_a_longer_run_begins_so(num: int, seed: int) -> None:
    drawn = list(sampled(SLOTS, num, seed))
    assert drawn == list(sampled(SLOTS, num, seed))
    assert drawn == list(sampled(SLOTS, num + 7, seed))[:num]
    assert len({str(values) for values, _ in drawn}) == num


def test_draws_keep_to_the_slots() -> None:
    drawn = [values for values, _ in sampled(SLOTS, 80, 1)]
    for values in drawn:
        assert values["district"] in {"Rome": ("Trastevere", "Monti"), "Oslo": ("Gamle Oslo",)}[values["city"]]
        assert values["stars"] in {"1 out of 5", "3 out of 5", "5 out of 5"}
        assert "dogs" not in values or values["city"] == "Oslo"
        for name, slot in SLOTS.items():
            assert name not in values or possible(slot) is None or values[name] in (possible(slot) or ())


def test_weights_weigh() -> None:
    heavy = {"city": Slot(choices={"Rome": 9.0, "Oslo": 1.0}), "number": Slot(range=(1, 1_000_000))}
    num = Counter(values["city"] for values, _ in sampled(heavy, 1000, 3))
    assert 850 < num["Rome"] < 950


def test_a_range_of_fractions() -> None:
    drawn = {values["x"] for values, _ in sampled({"x": Slot(range=(0, 0.3), step=0.1)}, 4, 0)}
    assert drawn == {"0", "0.1", "0.2", "0.3"}


def test_more_rows_than_the_slots_give_are_an_error_that_says_how_many() -> None:
    with pytest.raises(DistillError, match="7 different rows are wanted, and the slots give no more than 6"):
        list(sampled({"name": SLOTS["name"]}, 7, 0))


def test_the_taxonomy_is_drawn_first_and_others_hang_on_it() -> None:
    slots = with_taxonomy({"topic": Slot(by=LEAF, values={"a/b": ("x",), "a/c": ("y",)})}, {"a/b": 1.0, "a/c": 1.0})
    check(slots)
    assert {tuple(values.items()) for values, _ in sampled(slots, 2, 5)} == {
        ((LEAF, "a/b"), ("topic", "x")),
        ((LEAF, "a/c"), ("topic", "y")),
    }


@pytest.mark.parametrize(
    ("slots", "told"),
    [
        ({"a": Slot()}, "this has none of them"),
        ({"a": Slot(choices=("x",), range=(1, 2))}, "this has both choices and range"),
        ({"a": Slot(values={"x": ("y",)})}, "values and by belong together"),
        ({"a": Slot(parts=(("x",), ()))}, "an empty list"),
        ({"a": Slot(range=(2, 1))}, "the range ends at 1, before it begins"),
        ({"a": Slot(choices=("x",), when={"b": ("y",)}), "b": Slot(choices=("y",))}, "'b', which comes after it"),
        ({"city": Slot(choices=("x",)), "a": Slot(choices=("x",), when={"citty": ("y",)})}, "did you mean 'city'"),
    ],
)
def test_slots_that_do_not_hold_together_are_told_by_field(slots: dict[str, Slot], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        check(slots)
    assert error.value.field == "synth.slots.a"
