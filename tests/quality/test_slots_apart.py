"""The second slot checker: what it reads in a text, and that human texts score as the literature says."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from stepwell.quality.slots_apart import Errors, errors

FACTS = {
    "name": "The Copper Kettle",
    "eatType": "pub",
    "food": "Indian",
    "priceRange": "less than £20",
    "customer rating": "5 out of 5",
    "area": "riverside",
    "familyFriendly": "no",
    "near": "Café Meridian",
}
WHOLE = (
    "The Copper Kettle is a pub by the river near Café Meridian. It serves curry for under 20 pounds, "
    "is rated five stars and is not family-friendly."
)


def test_a_whole_text_has_no_errors() -> None:
    assert errors(FACTS, WHOLE) == Errors((), (), ())


@pytest.mark.parametrize(
    ("said", "instead", "found"),
    [
        ("a pub", "a place", Errors(("eatType",), (), ())),
        ("a pub", "a coffee shop", Errors((), ("eatType",), ())),
        ("serves curry", "serves meals", Errors(("food",), (), ())),
        ("serves curry", "serves sushi", Errors((), ("food",), ())),
        ("for under 20 pounds", "at low prices", Errors((), (), ())),
        ("for under 20 pounds", "at high prices", Errors((), ("priceRange",), ())),
        ("for under 20 pounds", "for more than £30", Errors((), ("priceRange",), ())),
        ("is rated five stars", "is highly rated", Errors((), (), ())),
        ("is rated five stars", "has a poor customer rating", Errors((), ("customer rating",), ())),
        ("is rated five stars", "has 1 out of 5 stars", Errors((), ("customer rating",), ())),
        ("by the river", "in the city centre", Errors((), ("area",), ())),
        ("is not family-friendly", "welcomes families", Errors((), ("familyFriendly",), ())),
        ("is not family-friendly", "is for adults only", Errors((), (), ())),
        (" near Café Meridian", "", Errors(("near",), (), ())),
        ("The Copper Kettle", "The Brass Bell", Errors(("name",), (), ())),
    ],
)
def test_one_change_is_one_error(said: str, instead: str, found: Errors) -> None:
    assert said in WHOLE
    assert errors(FACTS, WHOLE.replace(said, instead)) == found


def test_what_nobody_asked_for_is_added() -> None:
    text = "Fern is a cheap Italian pub near The Anchor in the city centre, rated 3 out of 5, children welcome."
    everything = {"food", "eatType", "priceRange", "customer rating", "area", "familyFriendly", "near"}
    assert set(errors({"name": "Fern"}, text).added) == everything


def test_restaurant_is_the_word_for_any_venue() -> None:
    assert errors({"name": "Fern"}, "Fern is a restaurant.").added == ()


def test_the_words_of_a_name_say_nothing_else() -> None:
    facts = {"name": "The Curry Garden", "near": "Riverside Family Bar"}
    assert errors(facts, "The Curry Garden is near the Riverside Family Bar.") == Errors((), (), ())


def test_a_misspelt_name_is_found() -> None:
    assert errors({"name": "Fitzwilliams"}, "Fitzwiliams is a place.") == Errors((), (), ())


def test_an_adjective_belongs_to_its_head_word() -> None:
    facts = {"priceRange": "high", "customer rating": "low"}
    assert errors(facts, "It has a high price range with a low customer rating.") == Errors((), (), ())
    assert errors(facts, "It has a low price range with a high customer rating.").wrong == tuple(facts)


def test_a_figure_for_a_vague_level_is_an_invention() -> None:
    assert errors({"customer rating": "low"}, "It has one star.").wrong == ("customer rating",)


def test_not_cheap_is_not_cheap() -> None:
    assert errors({"priceRange": "high"}, "It is not cheap.") == Errors((), (), ())


@given(some.dictionaries(some.sampled_from(sorted(FACTS)), some.text(min_size=1)), some.text())
def test_any_text_can_be_read(facts: dict[str, str], text: str) -> None:
    found = errors(facts, text)
    assert set(found.missing) | set(found.wrong) <= set(facts)
    assert not set(found.added) & set(facts)


@pytest.mark.skipif("STEPWELL_DATA" not in os.environ, reason="set STEPWELL_DATA to the folder that holds e2e/")
def test_human_texts_drop_about_a_tenth_of_the_slots() -> None:
    path = Path(os.environ["STEPWELL_DATA"]) / "e2e" / "devset.csv"
    with path.open(encoding="utf-8", newline="") as rows:
        pairs = [(facts_of(row["mr"]), row["ref"]) for row in csv.DictReader(rows)]
    num_errors = sum(len(kind) for facts, text in pairs for kind in listed(errors(facts, text)))
    assert 0.05 < num_errors / sum(len(facts) for facts, _ in pairs) < 0.12


def facts_of(mr: str) -> dict[str, str]:
    return {key.strip(): value for key, value in re.findall(r"([\w ]+)\[(.*?)\]", mr)}


def listed(found: Errors) -> tuple[tuple[str, ...], ...]:
    return found.missing, found.wrong, found.added
