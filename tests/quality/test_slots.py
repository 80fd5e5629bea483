"""The slot checker: what is said, left out, wrong or made up."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.quality import slots, slots_apart
from stepwell.quality.slots import Errors, error_rate, errors, facts_of
from stepwell.quality.text import bleu

MR = "name[The Eagle], eatType[coffee shop], food[Japanese], priceRange[less than £20], customer rating[low], area[riverside], familyFriendly[yes], near[Burger King]"
SAYS = {
    ("eatType", "pub"): "It is a pub.",
    ("eatType", "coffee shop"): "It is a coffee shop.",
    ("food", "French"): "They serve French food.",
    ("food", "Fast food"): "They serve fast food.",
    ("priceRange", "cheap"): "It is cheap.",
    ("priceRange", "£20-25"): "The price range is £20-25.",
    ("priceRange", "more than £30"): "Prices are more than £30.",
    ("priceRange", "high"): "Prices are high.",
    ("customer rating", "low"): "It has a low customer rating.",
    ("customer rating", "average"): "The customer rating is average.",
    ("customer rating", "5 out of 5"): "It is rated 5 out of 5.",
    ("area", "riverside"): "It lies by the river.",
    ("area", "city centre"): "It lies in the city centre.",
    ("familyFriendly", "yes"): "It is family friendly.",
    ("familyFriendly", "no"): "It is not family-friendly.",
    ("near", "Café Rouge"): "It is near Café Rouge.",
}


def test_a_perfect_text_has_no_errors() -> None:
    said = "The Eagle is a low rated coffee shop near Burger King by the riverside. It serves Japanese food under £20 and is kid friendly."
    assert errors(facts_of(MR), said) == Errors((), (), ())


@pytest.mark.parametrize(
    ("mr", "said", "wanted"),
    [
        ("name[Zizzi], food[French]", "Zizzi serves Indian food.", Errors((), ("food",), ())),
        ("name[Zizzi], food[French]", "Zizzi is nice.", Errors(("food",), (), ())),
        ("name[Zizzi]", "Zizzi is a cheap pub.", Errors((), (), ("eatType", "priceRange"))),
        ("name[Zizzi]", "Zizzi is a restaurant.", Errors((), (), ())),
        ("name[Zizzi]", "Ziggy is a restaurant.", Errors(("name",), (), ())),
        ("name[Zizzi], familyFriendly[no]", "Zizzi does not welcome children.", Errors((), (), ())),
        ("name[Zizzi], familyFriendly[yes]", "Zizzi is not for kids.", Errors((), ("familyFriendly",), ())),
        ("name[Zizzi], familyFriendly[no]", "Zizzi is for adults only.", Errors((), (), ())),
        ("name[Zizzi], near[The Rice Boat]", "Zizzi is near the rice boat.", Errors((), (), ())),
        ("name[Zizzi]", "Zizzi is near The Rice Boat.", Errors((), (), ("near",))),
        ("name[Rainbow Vegetarian Café], food[Chinese]", "Rainbow Vegetarian Cafe is Chinese.", Errors((), (), ())),
        ("name[The River House], area[city centre]", "The River House is in the city centre.", Errors((), (), ())),
        ("name[Zizzi], priceRange[high]", "Zizzi is inexpensive.", Errors((), ("priceRange",), ())),
        (
            "name[Zizzi], customer rating[5 out of 5], priceRange[cheap]",
            "Zizzi is a five star place with low prices.",
            Errors((), (), ()),
        ),
        (
            "name[Zizzi], customer rating[high], priceRange[moderate]",
            "Zizzi is highly rated and moderately priced.",
            Errors((), (), ()),
        ),
    ],
)
def test_single_errors(mr: str, said: str, wanted: Errors) -> None:
    assert errors(facts_of(mr), said) == wanted


@given(st.sets(st.sampled_from(sorted(SAYS)), min_size=1), st.randoms(use_true_random=False))
def test_a_text_made_of_plain_sentences_is_right_and_each_sentence_left_out_is_one_error(
    chosen: set[tuple[str, str]], chance: object
) -> None:
    facts = {"name": "Zizzi", **dict(sorted(chosen))}
    sentences = [SAYS[name, value] for name, value in facts.items() if name != "name"]
    chance.shuffle(sentences)  # type: ignore[attr-defined]
    assert errors(facts, " ".join(["This is Zizzi.", *sentences])) == Errors((), (), ())
    assert len(errors(facts, " ".join(["This is Zizzi.", *sentences[1:]]))) == 1


def test_what_is_no_meaning_representation_is_said() -> None:
    with pytest.raises(ValueError, match=r"name\[The Eagle\]"):
        facts_of("hello")


def test_the_rate_is_errors_over_slots() -> None:
    facts = facts_of("name[Zizzi], food[French]")
    assert error_rate([(facts, "Zizzi is French."), (facts, "Zizzi.")]) == 0.25
    assert error_rate([]) == 0.0


def test_on_human_texts_it_finds_what_is_known_of_them_and_agrees_with_the_checker_written_apart(data: Path) -> None:
    with (data / "e2e" / "devset.csv").open(encoding="utf-8-sig", newline="") as file:
        firsts = {row["mr"]: row["ref"] for row in reversed(list(csv.DictReader(file)))}
    pairs = [(facts_of(mr), ref) for mr, ref in firsts.items()]
    rate = error_rate(pairs)
    apart = [slots_apart.errors(facts, ref) for facts, ref in pairs]
    num = sum(len(found.missing) + len(found.wrong) + len(found.added) for found in apart)
    assert 0.05 < rate < 0.12, "human texts leave out or change about a slot in ten"
    assert abs(rate - num / sum(len(facts) for facts, _ in pairs)) < 0.02
    same = [bool(len(slots.errors(facts, ref))) == bool(found.missing or found.wrong or found.added) for (facts, ref), found in zip(pairs, apart, strict=True)]  # fmt: skip
    assert sum(same) / len(same) > 0.85


def test_bleu_has_a_signature_and_takes_any_number_of_references() -> None:
    told = bleu(["The Eagle is a pub by the river."], [["the eagle is a pub by the river.", "A pub."]])
    assert round(told.score) == 100
    assert "case:lc" in told.signature
    assert "tok:13a" in told.signature
    assert bleu(["x", "The pub is old."], [["y"], ["The pub is very old.", "It is an old pub."]]).score < 100
