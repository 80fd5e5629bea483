"""Curriculum, swapped values and replay: what holds for any prompts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from stepwell.distill.curriculum import drawn, tally, traits
from stepwell.distill.data import Example
from stepwell.distill.replay import fits, mixed, swapped, values_of
from stepwell.quality.verify import verifier

words = st.sampled_from(["Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot"])
prompts = st.builds(lambda name, food, near: f"name[{name}], food[{food} food], near[the {near}]", words, words, words)
verify = verifier("values")


def test_prompts_of_the_kind_that_fails_are_drawn_more_often() -> None:
    pool = [f"name[{n}], food[French]" for n in range(200)] + [f"name[{n}], near[here]" for n in range(200)]
    known = tally([(prompt, "near" in prompt) for prompt in pool])
    picked = drawn(pool, known, 100, share_random=0.2, chance=random.Random(0))
    hard = sum("near" in prompt for prompt in picked)
    assert hard > 80
    assert sum("near" in prompt for prompt in picked[:20]) in range(4, 17)  # the random slice


@given(st.lists(prompts, min_size=1, max_size=20), st.integers(0, 30), st.floats(0, 1), st.integers())
def test_what_is_drawn_is_of_the_pool_once(pool: list[str], num: int, share: float, seed: int) -> None:
    picked = drawn(pool, tally([]), num, share_random=share, chance=random.Random(seed))
    assert len(picked) == min(num, len(set(pool))) == len(set(picked))
    assert set(picked) <= set(pool)


def test_a_prompt_without_slots_has_traits_too() -> None:
    assert traits("Why is the sky blue?") == ["3 bits of words"]


@given(prompts, st.lists(prompts, min_size=1), st.integers())
def test_a_swap_is_right_and_new(prompt: str, others: list[str], seed: int) -> None:
    text = "; ".join(part.split("[")[1].rstrip("]") for part in prompt.split(", "))
    made = swapped(Example(prompt, text), values_of([prompt, *others]), verify, random.Random(seed))
    if made is not None:
        assert made.prompt != prompt
        assert not verify(made.prompt, made.completion)


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0, 0.9), st.integers())
def test_replay_has_its_share(num_new: int, num_old: int, share: float, seed: int) -> None:
    new, old = [Example("n", str(n)) for n in range(num_new)], [Example("o", str(n)) for n in range(num_old)]
    rows = mixed(new, old, share, random.Random(seed))
    assert rows[:num_new] == new
    wanted = round(num_new * share / (1 - share)) if old else 0
    assert len(rows) - num_new == wanted
    counts = [rows.count(row) for row in old]
    assert not counts or max(counts) - min(counts) <= 1


def test_a_swap_leaves_words_and_articles_whole() -> None:
    assert fits("French", "Italian", "a place with French food") is False  # a French, an Italian
    assert fits("French", "Chinese", "a place with French food")
    assert not fits("pub", "bar", "a public house")
    assert not fits("no", "yes", "no children")
    assert not fits("French", "Chinese", "French food, very French")
