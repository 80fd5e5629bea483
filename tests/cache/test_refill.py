"""Impersonal answers: the same question fills them to the byte, another fills in its values, and nothing else is guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stepwell.cache.slots import blank, refill


@pytest.mark.parametrize(
    ("question", "answer", "other", "filled"),
    [
        (
            "Can I send 250 euros to Anna Smith on Friday?",
            "Yes: choose Anna Smith, type 250 euros and pick Friday.",
            "Can I send 40 euros to Bob Jones on Monday?",
            "Yes: choose Bob Jones, type 40 euros and pick Monday.",
        ),
        (
            "Where is order AB-1234?",
            "Order AB-1234 is on its way.",
            "where is order XY-9?",
            "Order XY-9 is on its way.",
        ),
        ("Weather in Paris", "Paris has a page on our site.", "weather in Rome", "Rome has a page on our site."),
        ("Wait 5 days?", "Wait 5 days, then call: 5 days.", "Wait 7 days?", "Wait 7 days, then call: 7 days."),
        (
            "Please note my id AB12",
            '{"id": "AB12", "ok": true}',
            "please note my id CD34",
            '{"id": "CD34", "ok": true}',
        ),
        ('Note "hi" for me', 'I noted "hi".', 'note "<b>&{}" for me', 'I noted "<b>&{}".'),
    ],
)
def test_another_question_fills_in_its_own_values(question: str, answer: str, other: str, filled: str) -> None:
    slotted = blank(question, answer)
    assert slotted is not None
    assert refill(slotted, question) == answer
    assert refill(slotted, other) == filled


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        ("What is 5 plus 7?", "5 plus 7 is 12.", "computed"),
        ("What is 5 plus 7?", "That is twelve.", "computed, and nothing to fill in"),
        ("What is the capital of France?", "The capital of France is Paris.", "known of this very name"),
        ("Wait 5 days?", "Wait five days.", "in other words"),
        ("Wait 5 days?", "Wait 5 days, or 120 hours.", "computed"),
        ("Is Paris nice?", "Paris is nice, and paris loves you.", "said in another way, too"),
        ("From Paris to Paris?", "From Paris to Paris it is not far.", "two that are one"),
        ("From York to New York?", "From York to New York by ship.", "one within another"),
        ("Is it 5?", "It is 5.50.", "another number"),
        ('Note "hi" for me', '{"note": "hi"}', "a JSON string is no quote"),
        ('Note "hi" for me', 'Run `echo "hi"` now.', "code, where any sign may mean something"),
        ("How do I pay?", "With your card.", "no values"),
        ("Wait 5 days?", "", "no answer"),
        ("Wait 5 days?", "Wait 5 days. " + "So it is. " * 1000, "too long to be read"),
    ],
)
def test_nothing_is_blanked_where_something_else_may_depend_on_it(question: str, answer: str, why: str) -> None:
    assert blank(question, answer) is None, why


@pytest.mark.parametrize(
    ("question", "answer", "other"),
    [
        ("Wait 5 days?", "Wait 5 days.", "Do not wait 7 days?"),
        ("Wait 5 days?", "Wait 5 days.", "Wait 7 euros?"),
        ("Wait 5 days?", "Wait 5 days.", "Wait?"),
        ("Wait 5 days?", "Wait 5 days.", "Wait 1 day?"),
        ("Pay 5 euros on Friday?", "Pay 5 euros.", "Pay 5 euros on Monday?"),
        ("Ask in Oman?", "In an Oman office.", "Ask in Peru?"),
        ("Send AB-1 to CD-2?", "AB-1 goes to CD-2.", "Send AB-1 to AB-1?"),
        ("Note my mail bob@x.com", '{"mail": "bob@x.com"}', 'Note my mail a","x":"@x.com'),
    ],
)
def test_a_question_that_differs_in_more_than_values_fills_nothing(question: str, answer: str, other: str) -> None:
    slotted = blank(question, answer)
    assert slotted is not None
    assert refill(slotted, other) is None


VALUES = st.one_of(
    st.integers(2, 10**5).map(lambda number: f"{number} euros"),
    st.sampled_from(["Anna", "Bob Jones", "Paris", "Zürich", "李雷"]),
    st.sampled_from(["Monday", "next week", "2026-05-01", "3:30 pm"]),
    st.text("AB0123456789", min_size=1, max_size=6).map(lambda text: f"X{text}7"),
    st.text(max_size=20).map(lambda text: '"' + text + '"'),
)
FRAMES = st.sampled_from(
    ["yes, {} it is", "{}", "{} and {} go, {}", '{{"a": "{}"}}', "[{}]", "no value", "it is {}. {}!"]
)


@given(st.lists(VALUES, min_size=1, max_size=4), FRAMES, st.text(max_size=20))
def test_the_same_question_gives_the_same_answer_back(values: list[str], frame: str, tail: str) -> None:
    question = "how about " + " with ".join(values)
    answer = frame.format(*(values * 3)) + tail
    slotted = blank(question, answer)
    assume(slotted is not None)
    assert slotted is not None
    assert refill(slotted, question) == answer
    assert all(slotted.raws[which] for which in slotted.blanks)
    assert len(slotted.texts) == len(slotted.blanks) + 1


HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ['", "admin": true, "x": "', "\\", '\\"', "]}", "\u0000", "</script><script>", "{{7*7}}", "\u202e", "${jndi:x}"]
    ),
)


@given(HOSTILE)
def test_hostile_values_stay_text(hostile: str) -> None:
    slotted = blank('note "hi" for me', 'I noted "hi" for you.')
    assert slotted is not None
    filled = refill(slotted, f'note "{hostile}" for me')
    assert filled is None or '"' in hostile or filled == f'I noted "{hostile}" for you.'


@given(HOSTILE)
def test_hostile_values_never_break_out_of_a_json_string(hostile: str) -> None:
    slotted = blank("note my mail bob@x.com", '{"mail": "bob@x.com", "ok": true}')
    assert slotted is not None
    filled = refill(slotted, f"note my mail {hostile}@x.com")
    if filled is not None:
        told = json.loads(filled)
        assert set(told) == {"mail", "ok"}
        assert told["ok"] is True
        assert isinstance(told["mail"], str)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_any_texts_are_taken(question: str, answer: str, other: str) -> None:
    slotted = blank(question, answer)
    if slotted is not None:
        refill(slotted, other)
