"""Near duplicates: whatever is thrown away is one, and those at the threshold are found."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.synth.minhash import cut_for, twins

WORDS = [f"w{at}" for at in range(400)]


def shingles(text: str, n: int = 5) -> frozenset[tuple[str, ...]]:
    words = text.split()
    return frozenset(tuple(words[at : at + n]) for at in range(max(1, len(words) - n + 1)))


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=14))
def test_what_dies_is_similar_and_what_stays_equals_nothing_before(texts: list[str]) -> None:
    found = twins(texts)
    for at, twin in found.items():
        assert twin.of < at
        assert twin.of not in found
        assert jaccard(texts[at], texts[twin.of]) == twin.similarity >= 0.8
    staying = [text for at, text in enumerate(texts) if at not in found]
    assert len({tuple(text.split()) for text in staying}) == len(staying)


def test_pairs_at_the_threshold_are_found() -> None:
    chance = random.Random(1)
    texts: list[str] = []
    for _ in range(400):
        words = chance.choices(WORDS, k=60)
        texts += [" ".join(words), " ".join([*words[:-5], *chance.choices(WORDS, k=5)])]  # 51 of 61 shingles: 0.836
    found = twins(texts)
    assert all(at % 2 for at in found)
    assert all(0.8 <= twin.similarity < 0.9 for twin in found.values())
    assert len(found) >= 394


def test_bands_fit_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.8, 0.9, 0.99):
        cut = cut_for(threshold)
        assert cut.num * cut.rows <= 128
        assert 1 - (1 - threshold**cut.rows) ** cut.num >= 0.995
    assert cut_for(0.9).rows > cut_for(0.5).rows


def test_nothing_and_empty_texts() -> None:
    assert twins([]) == {}
    assert list(twins(["", "a", "", "!"])) == [2, 3]


def test_case_accents_and_punctuation_do_not_count() -> None:
    assert list(twins(["Le Café est ouvert, le soir!", "le cafe EST ouvert le soir", "le thé est ouvert le soir"])) == [
        1
    ]
