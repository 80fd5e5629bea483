"""What is personal by its form becomes a placeholder, the same value always the same one; all else stays."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stepwell.synth.mask import masked

PLACEHOLDER = re.compile(r"<(EMAIL|PHONE|NUMBER|CARD|IBAN|IP|URL|KEY|ID)_\d+>")
quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Write to anna.berg@example.co.uk.", "Write to <EMAIL_1>."),
        ("Anna <anna@example.com>, Bo <bo@example.com>", "Anna <<EMAIL_1>>, Bo <<EMAIL_2>>"),
        ("anna (at) example (dot) com", "<EMAIL_1>"),
        ("Call +49 (170) 123-4567 now", "Call <PHONE_1> now"),
        ("Call 0170.1234567, or 0170 1234567", "Call <PHONE_1>, or <PHONE_1>"),
        ("Customer 12345678", "Customer <NUMBER_1>"),
        ("١٢٣٤٥٦٧٨", "<NUMBER_1>"),
        ("on 2026-11-26 0170 1234567", "on 2026-11-26 <PHONE_1>"),
        ("0000000 0.0.0.0", "<PHONE_1> <IP_1>"),
        ("Pay with 4111 1111 1111 1111 please", "Pay with <CARD_1> please"),
        ("DE89 3704 0044 0532 0130 00 is mine", "<IBAN_1> is mine"),
        ("gb82west12345698765432", "<IBAN_1>"),
        ("from 192.168.0.17 and 192.168.0.17:8080", "from <IP_1> and <IP_1>:8080"),
        ("from 2001:db8::ff00:42:8329, too", "from <IP_1>, too"),
        ("see https://example.com/a?token=abc123.", "see <URL_1>."),
        ("see https://anna:pw@example.com/", "see <URL_1>"),
        ("see https://example.com/reset/9f8a7b6c5d4e3f2a1b0c9d8e", "see <URL_1>"),
        ("the key sk-proj-abcDEF1234567890abcd works", "the key <KEY_1> works"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer <KEY_1>"),
        ("my password is Sunshine-9!", "my password is <KEY_1>!"),
        ("AKIAIOSFODNN7EXAMPLE", "<KEY_1>"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id <ID_1>"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nowIB\n-----END RSA PRIVATE KEY-----", "<KEY_1>"),
    ],
)
def test_what_has_a_form_is_found(text: str, told: str) -> None:
    assert masked([text]) == [told]


@pytest.mark.parametrize(
    "text",
    [
        "The Eagle is a cheap Italian pub near Burger King, 5 out of 5.",
        "name[The Mill], priceRange[£20-25], customer rating[3 out of 5]",
        "On 2026-11-26 at 10:30, for 4 people",
        "1998-2004",
        "see https://example.com/menu?page=2",
        "10:30:15 and 11:45",
        "a secret garden, a token of love, the password policy",
        "Donaudampfschifffahrtsgesellschaftskapitän",
        "version 1.2.3, section 4.5",
        "x@y",
    ],
)
def test_what_is_not_personal_stays(text: str) -> None:
    assert masked([text]) == [text]


def test_one_row_one_name_for_one_value() -> None:
    asked, said = masked(
        ["I am Anna@Example.com, tel. +44 20 7946 0958", "Hello anna@example.com, I call 00 or +44 (20) 7946-0958"]
    )
    assert asked == "I am <EMAIL_1>, tel. <PHONE_1>"
    assert said == "Hello <EMAIL_1>, I call 00 or <PHONE_1>"


def test_a_placeholder_that_somebody_wrote_is_not_used_again() -> None:
    assert masked(["<EMAIL_1> and a@b.example"]) == ["<EMAIL_1> and <EMAIL_2>"]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
LABEL = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)
EMAILS = st.tuples(LABEL, LABEL, st.sampled_from(["com", "de", "co.uk", "example"])).map(
    lambda each: f"{each[0]}@{each[1]}.{each[2]}"
)
PHONES = st.from_regex(r"\+[1-9][0-9]{1,2} [1-9][0-9]{2} [0-9]{3} [0-9]{2,4}", fullmatch=True)
ADDRESSES = st.ip_addresses().map(str).filter(lambda each: each not in {"::", "::1"})
TOKENS = st.from_regex(r"sk-[A-Za-z0-9]{20,40}", fullmatch=True)


def luhn(digits: str) -> str:
    """The digits with their check digit (ISO/IEC 7812)."""
    total = sum(sum(divmod(int(each) * (2 - place % 2), 10)) for place, each in enumerate(reversed(digits)))
    return f"{digits}{-total % 10}"


def iban(country: str, account: str) -> str:
    """An account with its check digits (ISO 13616)."""
    number = int("".join(str(int(each, 36)) for each in f"{account}{country}00"))
    return f"{country}{98 - number % 97:02}{account}"


CARDS = st.from_regex(r"[345][0-9]{14}", fullmatch=True).map(luhn)
IBANS = st.tuples(st.sampled_from(["DE", "GB", "FR"]), st.from_regex(r"[0-9]{18}", fullmatch=True)).map(
    lambda each: iban(*each)
)
PERSONAL = st.one_of(EMAILS, PHONES, ADDRESSES, TOKENS, CARDS, IBANS)


@quickly
@given(st.lists(st.tuples(WORDS, PERSONAL), min_size=1, max_size=4), WORDS)
def test_nothing_personal_is_left(parts: list[tuple[str, str]], rest: str) -> None:
    text = "".join(f"{before} {value} " for before, value in parts) + rest
    (told,) = masked([text])
    for _, value in parts:
        assert value not in told


@quickly
@given(st.lists(WORDS | PERSONAL, max_size=6).map(" ".join))
@example("0" * 60)
@example("a@" * 200)
def test_masking_again_changes_nothing(text: str) -> None:
    once = masked([text])
    assert masked(once) == once


@quickly
@given(st.lists(st.text(max_size=80), max_size=4))
def test_all_that_is_left_was_there(texts: list[str]) -> None:
    for text, told in zip(texts, masked(texts), strict=True):
        at = 0
        for piece in re.split(PLACEHOLDER.pattern.replace("(", "(?:"), told):
            found = text.find(piece, at)
            assert found >= at
            at = found + len(piece)


@pytest.mark.parametrize("text", ["1" * 30_000, "a@" * 15_000, "+" * 30_000, "sk-" * 10_000, "::" * 15_000, "-----BEGIN PRIVATE KEY-----" * 1000, "http://a?" * 3_000, "a.b" * 10_000, "DE89 " * 6_000])  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    masked([text])  # the test's own time limit ends what does
