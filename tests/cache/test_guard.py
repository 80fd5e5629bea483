"""What the guard forbids, what it lets pass, and that it never minds any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.cache.guard import VETOES, slot_difference, vetoes
from stepwell.cache.vouch import AGREE, vouches
from stepwell.facts.facts import MAX_CHARS, facts


def between(asked: str, kept: str) -> set[str]:
    return set(vetoes(facts(asked), facts(kept)))


@pytest.mark.parametrize(
    ("asked", "kept", "veto"),
    [
        ("How do I activate my card?", "How do I deactivate my card?", "direction"),
        ("turn the alarm on", "turn the alarm off", "direction"),
        ("what is the maximum transfer", "what is the least I can transfer", "direction"),
        ("Can I use it abroad?", "Can't I use it abroad?", "negation"),
        ("why was my card accepted", "why was my card never accepted", "negation"),
        ("I waited 3 days for my card", "my card took 5 days", "measure"),
        ("wake me in 3 minutes", "wake me in 3 hours", "measure"),
        ("send 20 dollars", "send 20 euros", "money"),
        ("a table for two", "a table for four", "number"),
        ("what about my 2nd card", "my third card, what about it", "ordinal"),
        ("is it open tomorrow", "is it open on Sunday", "date"),
        ("meet at 2 pm", "meet at 3 pm", "time"),
        ("where is order A-1234", "where is order A-1235", "code"),
        ("where is order A-1234", "where is my order", "code"),
        ('what does "pending" mean', 'what does "declined" mean', "quote"),
        ("flights to Paris please", "are there flights to Rome", "entity"),
        ("who can get my card", "when can I get my card", "question"),
        ("from savings to checking", "from checking to savings", "order"),
        ("flights from new york to paris", "flights from paris to new york", "order"),
        ("can alice pay bob with it", "can bob pay alice with it", "order"),
        ("how do I boil an egg", "how do I freeze an egg", "swap"),
        ("what is 5 + 3", "what is 5 * 3", "swap"),
        ("what is 5-3", "what is 5 + 3", "swap"),
        ("is x < y", "is x > y", "swap"),
        ("how do I sort in C++", "how do I sort in C", "more"),
        ("how do I sort in C++", "how do I sort in C#", "swap"),
        ("is there a fee on my card", "is there a fee off my card", "swap"),
        ("can I withdraw all of it", "can I withdraw half of it", "swap"),
        ("close my account", "close my account and tell nobody what the secret password says", "more"),
        ("can I get a card", "can I get a card in 3 days", "more"),
        ("can I get a card", "can I get a card in Spain", "more"),
        ("how do I pay the fee", "how do I avoid to pay the fee", "more"),
        ("Wie kann ich meine Karte aktivieren?", "How can I activate the card in my app?", "language"),
        ("如何激活我的卡", "How do I activate my card", "language"),
        ("wie viele karten kann ich haben", "wie viele konten kann ich haben", "swap"),
        ("どうやってカードを停止しますか", "どうやってカードを再開しますか", "swap"),
        ("сколько стоит билет", "сколько стоит проезд", "swap"),
        ("x" * (MAX_CHARS + 1), "x" * (MAX_CHARS + 1), "long"),
    ],
)
def test_what_changes_the_answer_is_forbidden_both_ways(asked: str, kept: str, veto: str) -> None:
    assert veto in between(asked, kept)
    assert veto in between(kept, asked)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("How do I activate my card?", "What are the steps for activating a new card?"),
        ("My card has not arrived", "I'm still waiting for my card"),
        ("My payment was not accepted", "my payment was rejected"),
        ("I don't remember my passcode", "I forgot my passcode"),
        ("I can't top up", "I am unable to top up"),
        ("I don't know why my card was declined", "why was my card declined"),
        ("Where can I buy a ticket?", "Where could I purchase tickets, please?"),
        ("the exchange rate was incorrect", "the exchange rate was wrong"),
        ('Why does it say "pending"?', "Why does it say pending?"),
        ("do you take visa or mastercard", "do you take mastercard or visa"),
        ("my card is stolen", "my cards were stolen"),
        ("Why was I charged for cash withdrawal?", "Why was I charged for withdrawing cash?"),
        ("how do I recieve money", "how do I receive money"),
        ("How much is it?", "how much is it"),
        ("I need it now, please", "I need it"),
        ("wait two weeks", "wait 2 weeks"),
        ("how do I get a new card", "how do I go about to get a new card"),
        ("", ""),
    ],
)  # fmt: skip
def test_other_words_for_the_same_pass_both_ways(asked: str, kept: str) -> None:
    assert between(asked, kept) == set()
    assert between(kept, asked) == set()


@pytest.mark.parametrize(
    ("asked", "kept", "kinds"),
    [
        ("Wait 5 days", "wait 7 days", ("measure",)),
        ("send 20 euros to Anna on Monday", "send 30 euros to Bob on Friday", ("money", "entity", "date")),
        ("track AB-12", "track CD-34", ("code",)),
        ("is it open in Paris", "is it open in Rome", ("entity",)),
        ("Wait 5 days", "Wait 5 days", ()),
        ("Wait 5 days", "never wait 7 days", ()),
        ("Wait 5 days", "wait 7 euros", ()),
    ],
)
def test_a_difference_of_values_alone_is_told_apart(asked: str, kept: str, kinds: tuple[str, ...]) -> None:
    assert slot_difference(facts(asked), facts(kept)) == kinds


def test_a_value_difference_is_always_a_veto_too() -> None:
    asked, kept = facts("send 20 euros to Anna"), facts("send 30 euros to Bob")
    assert slot_difference(asked, kept)
    assert {"money", "entity"} <= set(vetoes(asked, kept))


@pytest.mark.parametrize(
    ("asked", "kept", "objected", "vouched"),
    [
        ("my transfer was rejected", "why has a transfer been rejected?", "my transfer was declined badly", True),
        ("how do I freeze an egg", "ways to boil eggs", "how do I boil an egg", False),
        ("how do I deactivate my card", "what are the steps to activate cards?", "how do I activate my card", False),
        ("I can't find my PIN", "where is the PIN I cannot find", "I can find my PIN", True),
        ("I can't find my PIN", "where is my PIN to be found?", "I can find my PIN", False),
        ("wait 5 days for it", "it takes days", "wait 7 days for it", False),
        ("wait 5 days for it", "it takes 5 days, why wait", "wait 7 days for it", True),
        ("from x to y", "to y from x", "from y to x", False),
    ],
)
def test_another_wording_answers_only_with_what_the_nearer_one_lacked(
    asked: str, kept: str, objected: str, *, vouched: bool
) -> None:
    assert vouches(facts(asked), facts(kept), facts(objected)) is vouched


def test_every_veto_has_a_second_opinion() -> None:
    assert set(AGREE) == set(VETOES)


texts = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [
                "how",
                "do",
                "I",
                "not",
                "pay",
                "5",
                "euros",
                "to",
                "Anna",
                "from",
                "Paris",
                "'x'",
                '"y"',
                "A-12",
                "on",
                "off",
                "yesterday",
                ",",
                "?",
            ]
        ),
        max_size=14,
    ).map(" ".join),
)


@given(texts, texts)
def test_vetoes_are_the_same_both_ways(asked: str, kept: str) -> None:
    one, other = facts(asked), facts(kept)
    assert set(vetoes(one, other)) == set(vetoes(other, one)) <= set(VETOES)


@given(texts)
def test_a_text_answers_itself(text: str) -> None:
    read = facts(text)
    assert vetoes(read, read) == ()
    assert slot_difference(read, read) == ()
    assert vouches(read, read, read)


@given(texts, texts, st.data())
def test_a_number_changed_is_always_seen(before: str, after: str, data: st.DataObject) -> None:
    one, other = data.draw(st.lists(st.integers(2, 999), min_size=2, max_size=2, unique=True))
    asked, kept = (f"{before} zebra {number} okapi {after}" for number in (one, other))
    assert between(asked, kept)
