"""Slots are read out of prompts and written back into their place."""

from __future__ import annotations

from time import process_time

from hypothesis import given
from hypothesis import strategies as st

from stepwell.synth.slots import facts_key, read, with_slots, write

NAMES = st.from_regex(r"[a-z][a-z ]{0,8}[a-z]", fullmatch=True)
VALUES = st.from_regex(r"[\w£&'.-][\w£&'. -]{0,10}[\w.]", fullmatch=True)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.sampled_from(["", "Write: ", "One sentence.\n"]))
def test_what_is_written_is_read(slots: dict[str, str], before: str) -> None:
    for form in ("brackets", "json"):
        found = read(before + write(slots, form))  # type: ignore[arg-type]
        assert found is not None
        assert found.slots == slots
        assert found.format == form
        assert with_slots(found, slots) == before + write(slots, form)  # type: ignore[arg-type]


def test_json_may_stand_behind_other_braces() -> None:
    found = read('Fill {x} with {"city": "Rome", "guests": 2} please')
    assert found is not None
    assert found.slots == {"city": "Rome", "guests": 2}
    assert found.after == " please"


def test_facts_in_another_order_or_case_are_the_same_facts() -> None:
    assert facts_key("name[The Mill], food[French]") == facts_key("food[french],  name[the Mill]")
    assert facts_key("name[The Mill], food[French]") != facts_key("name[The Mill], food[Italian]")
    assert facts_key("inform(name[X])") != facts_key("recommend(name[X])")
    assert facts_key("What is this?") == ""


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    read(text)


def test_a_hostile_prompt_is_read_in_no_time() -> None:
    start = process_time()
    for text in ("a" * 200_000, "[" * 200_000, "{" * 200_000, "a[" * 100_000, "a[b], " * 30_000, '{"a":' * 50_000):
        read(text)
    assert process_time() - start < 10
