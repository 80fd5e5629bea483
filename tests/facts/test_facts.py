"""What is read from a text: values however they are written, and any text at all without harm."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.facts.facts import MAX_CHARS, facts


def read(text: str) -> list[tuple[str, str]]:
    return [(value.kind, value.norm) for value in facts(text).values]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("I sent 250 euros", [("money", "250 eur")]),
        ("I sent two hundred and fifty euros", [("money", "250 eur")]),
        ("I sent € 1,250.50", [("money", "1250.5 eur")]),
        ("I sent 1.250,50 €", [("money", "1250.5 eur")]),
        ("it costs $2k", [("money", "2000 usd")]),
        ("wait twenty five minutes", [("measure", "25 min")]),
        ("wait 25 mins", [("measure", "25 min")]),
        ("for 3 seconds", [("measure", "3 s")]),
        ("the second card", [("ordinal", "2")]),
        ("the 2nd card", [("ordinal", "2")]),
        ("I was charged twice", [("number", "x2")]),
        ("one of my cards", []),
        ("one week ago", [("measure", "1 week")]),
        ("at 2:30 pm", [("time", "14:30")]),
        ("at 14:30", [("time", "14:30")]),
        ("at 2pm", [("time", "14:00")]),
        ("on 2026-05-01", [("date", "2026-5-1")]),
        ("on May 5th", [("date", "5/5")]),
        ("on the fifth of May", [("date", "5/5")]),
        ("may I go in May", [("date", "month 5")]),
        ("next Friday or tomorrow", [("date", "next fri"), ("date", "tomorrow")]),
        ("order #12345-AB please", [("code", "#12345-ab")]),
        ("flight LH404 with --max-cost", [("code", "lh404"), ("code", "--max-cost")]),
        ("account 12345678", [("code", "12345678")]),
        ("write to bob@example.org", [("code", "bob@example.org")]),
        ("version 1.2.3", [("code", "1.2.3")]),
        ('say "good morning"', [("quote", "good morning")]),
        ("ask Anna Smith in paris", [("entity", "anna smith"), ("entity", "paris")]),
        ("How Do I Get My New Card Now", []),
        ("from USD to euros", [("entity", "usd"), ("entity", "eur")]),
        ("٣٠ minutes", [("measure", "30 min")]),
    ],
)
def test_equal_values_are_equal_however_they_are_written(text: str, values: list[tuple[str, str]]) -> None:
    assert read(text) == values


def test_a_value_says_where_it_stands() -> None:
    text = "Send two hundred euros to Anna on Friday"
    assert [text[value.start : value.end] for value in facts(text).values] == ["two hundred euros", "Anna", "Friday"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I activate my card in the app?", "en"),
        ("Wie kann ich meine Karte aktivieren?", "de"),
        ("Comment puis-je activer ma carte avec vous ?", "fr"),
        ("¿Cómo puedo activar mi tarjeta?", "es"),
        ("Как активировать карту?", "cyrillic"),
        ("カードを有効にするには", "kana"),
        ("如何激活我的卡", "han"),
        ("मेरा कार्ड कब आएगा", "indic"),
        ("12345", ""),
    ],
)
def test_a_language_is_told_by_script_and_function_words(text: str, language: str) -> None:
    assert facts(text).language == language


def test_what_steers_a_meaning_is_seen() -> None:
    assert facts("I can't see it").negations == facts("I cannot see it").negations == 1
    assert facts("I don't know why it failed").negations == 0
    assert facts("turn the lights off").poles
    assert not facts("top up my card").poles & facts("turn it down").poles
    assert [facts(text).asks for text in ("how many cards", "tell me when", "activate it")] == ["how many", "when", ""]


def test_inflections_and_contractions_are_one() -> None:
    one, other = facts("Are cards being activated?"), facts("Is a card activated?")
    assert one.words == other.words
    assert facts("it doesn't work").words == facts("it does not work").words


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    found = facts(text)
    assert found.whole
    ends = [0] + [value.end for value in found.values]
    assert all(end <= value.start < value.end <= len(text) for end, value in zip(ends, found.values, strict=False))
    assert found == facts(text)


@given(
    st.lists(
        st.sampled_from(
            [
                "1",
                "-",
                "a",
                "'",
                '"',
                "$",
                "€",
                "@",
                ".",
                "of",
                "may",
                "two",
                " ",
                "_",
                "#",
                "one",
                "Abc",
                "th",
                ":",
                "é",
            ]
        ),
        max_size=60,
    )
)
def test_any_mixture_of_signs_is_read(parts: list[str]) -> None:
    facts("".join(parts))
    facts(" ".join(parts))


@pytest.mark.parametrize(
    "unit",
    ["a", "1", '"', "a@", "1-", "\u0301", "a_", "x1", "www.", "'", "Ab ", "one ", "$ ", "1:", "--a ", "a.b@", "字"],
)
def test_a_megabyte_is_read_as_far_as_it_is_read_at_all(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start_s = process_time()
    found = facts(text)
    assert not found.whole
    assert found == facts(text[: MAX_CHARS + 1])
    assert process_time() - start_s < 5, "work does not grow with the text"
