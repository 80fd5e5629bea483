"""The generator of near-misses makes what it says: different pairs, the same ones each time, some with unseen words."""

from __future__ import annotations

from bench.cache.near_misses import KINDS, near_misses

QUESTIONS = [
    f"{ask} {what} {where}?"
    for ask in ("How do I open", "Can I send", "Why is there", "When was", "I want to add")
    for what in ("a card", "my first payment of 20 dollars", "all of the money", "the old account")
    for where in ("in Spain", "from London to Paris", "for Anna", "with Visa", "today", "on my phone")
]


def test_each_kind_has_its_share_and_nothing_is_left_to_chance() -> None:
    made = near_misses(QUESTIONS, 20, seed=1)
    assert [miss.kind for miss in made] == [kind for kind in KINDS for _ in range(20)]
    assert all(miss.kept.lower() != miss.asked.lower() for miss in made)
    assert made == near_misses(QUESTIONS, 20, seed=1)
    assert made != near_misses(QUESTIONS, 20, seed=2)
    assert {miss.unseen for miss in made} == {True, False}


def test_a_near_miss_keeps_most_of_its_question() -> None:
    for miss in near_misses(QUESTIONS, 20, seed=1):
        kept, asked = set(miss.kept.lower().split()), set(miss.asked.lower().split())
        assert len(kept & asked) >= 2
