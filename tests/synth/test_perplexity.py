"""A small model of words knows what is usual."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.synth.perplexity import END, START, Ngrams, counts_chance, pair

WORDS = st.sampled_from(["a", "b", "c"])
TEXTS = st.lists(st.lists(WORDS, max_size=4).map(" ".join), min_size=1, max_size=6)


@given(TEXTS)
def test_the_chances_of_all_first_words_are_one(texts: list[str]) -> None:
    model = Ngrams(texts)
    known = sorted({word for text in texts for word in text.split()})
    # p(w, end) = p(w) p(end | w): take the end's chance out by the text of one word more
    total = sum(first_chance(model, word) for word in known)
    total += math.exp(-math.log(model.perplexities([""])[0]))
    unknown = first_chance(model, "zzz")
    assert total + unknown == pytest.approx(1.0)


def first_chance(model: Ngrams, word: str) -> float:
    """p(word | start) as sum over what may follow: p(word end) / p(end | word), by brute force over the last order."""
    whole = math.exp(-2 * math.log(model.perplexities([word])[0]))
    return whole / end_chance(model, word)


def end_chance(model: Ngrams, word: str) -> float:
    one, two = np.array([START]), np.array([np.uint64(model.hashing.number(word))])
    end, chance = np.array([END]), np.array([1 / model.num_words])
    for counts, context in zip(model.orders, (np.zeros(1, np.uint64), two, pair(one, two)), strict=True):
        chance = counts_chance(counts, context, end, chance)
    return float(chance[0])


def test_usual_texts_surprise_less() -> None:
    chance = random.Random(0)
    usual = [f"The {chance.choice(['Mill', 'Fox', 'Heron'])} is a {chance.choice(['cheap', 'good'])} pub near the river."
             for _ in range(200)]  # fmt: skip
    told = Ngrams(usual).perplexities([usual[0], "river the near pub cheap a is Mill the", "qwe rty uio", ""])
    assert told[0] < 3
    assert told[0] < told[1] < told[2]


def test_no_text_and_no_question() -> None:
    assert list(Ngrams([]).perplexities(["a"])) == [1.0]
    assert list(Ngrams(["a"]).perplexities([])) == []
