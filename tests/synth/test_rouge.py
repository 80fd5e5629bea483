"""ROUGE-L by bits is ROUGE-L by the book."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepwell.synth.rouge import Novelty, common, rouge_l

WORDS = st.lists(st.sampled_from("abcde"), max_size=90)


def by_the_book(one: list[str], other: list[str]) -> int:
    rows = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


@given(WORDS, WORDS)
def test_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    assert common(one, other) == by_the_book(one, other)


def test_f1() -> None:
    assert rouge_l(["the", "cat", "sat"], ["the", "cat", "ran", "fast"]) == 2 * 2 / 7
    assert rouge_l(["a"], ["a"]) == 1
    assert rouge_l([], ["a"]) == 0


@given(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=8).map(" ".join), min_size=1, max_size=8))
def test_what_is_taken_is_unlike_all_before(prompts: list[str]) -> None:
    novelty = Novelty(0.7, [])
    taken: list[str] = []
    for prompt in prompts:
        near = max((rouge_l(prompt.split(), other.split()) for other in taken), default=0.0)
        assert novelty.take(prompt) == near
        if near < 0.7:
            taken.append(prompt)
