"""Every planted leak is found, and nothing that is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.synth.leaks import leaks

WORDS = [f"wörd{at}" for at in range(3000)]
MARKS = ("", ",", ".", " -", "!", ' "')


def sentence(chance: random.Random, num: int) -> list[str]:
    return chance.choices(WORDS, k=num)


def disguised(words: list[str], chance: random.Random) -> str:
    return " ".join((word.upper() if chance.random() < 0.3 else word) + chance.choice(MARKS) for word in words)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([8, 10, 13]))
def test_all_planted_leaks_are_found_and_no_other_row(seed: int, n: int) -> None:
    chance = random.Random(seed)
    held = [(disguised(sentence(chance, 20), chance), disguised(sentence(chance, chance.randint(8, 40)), chance))
            for _ in range(30)]  # fmt: skip
    rows, planted = [], set()
    for at in range(120):
        prompt, completion = sentence(chance, 15), sentence(chance, 25)
        if at % 3 == 0:
            source = chance.choice(chance.choice(held)).replace(".", " ").lower().split()
            words = [word.strip(',.-!"') for word in source if word.strip(',.-!"')]
            start = chance.randint(0, max(0, len(words) - n))
            target = chance.choice([prompt, completion])
            target[5:5] = words[start : start + n]
            planted.add(at)
        rows.append((disguised(prompt, chance), disguised(completion, chance)))
    assert set(leaks(rows, held, n=n)) == planted


def test_one_word_less_is_no_leak() -> None:
    words = [f"w{at}" for at in range(30)]
    held = [("a question", " ".join(words))]
    assert leaks([("q", " ".join(words[3:15]))], held) == {}
    found = leaks([("q", "x " + " ".join(words[3:16]))], held)
    assert found[0].kind == "words"
    assert found[0].what == "words of a held-out text: " + " ".join(words[3:16])


def test_a_short_text_counts_as_a_whole_from_eight_words() -> None:
    held = [("q", "one two three four five six seven eight"), ("q", "a b c d e f g")]
    assert set(leaks([("r", "zero one two three four five six seven eight nine"), ("p", "x a b c d e f g")], held)) == {
        0
    }


def test_rows_and_facts_are_told_apart() -> None:
    held = [("name[The Mill], food[French]", "The Mill is French.")]
    rows = [
        ("Name[the mill],  food[French]", "the Mill is  French."),
        ("food[French], name[The Mill]", "French food at The Mill."),
        ("food[French], name[The Fox]", "French food at The Fox."),
        ("food[French], name[The Fox]", "The Mill is French."),
    ]
    assert {at: leak.kind for at, leak in leaks(rows, held).items()} == {0: "row", 1: "facts"}


def test_the_same_question_is_a_leak_whatever_the_answer() -> None:
    found = leaks([("what's the  time?", "noon"), ("What time?", "noon")], [("What's the time?", "")])
    assert {at: leak.kind for at, leak in found.items()} == {0: "prompt"}


def test_a_leak_inside_a_prompt_of_facts_is_one() -> None:
    words = " ".join(f"w{at}" for at in range(13))
    assert leaks([(f"note[{words}]", "x")], [("q", words)])[0].kind == "words"


def test_the_form_that_all_prompts_share_is_no_leak() -> None:
    form = "Please read the following review with care and say in one word whether it is good:"
    held = [(f"{form} item {at} was of quality {at}", f"answer {at}") for at in range(20)]
    assert leaks([(f"{form} something else", "good")], held) == {}
    assert leaks([(f"{form} item 3 was of quality 3 or so", "good")], held)[0].kind == "words"


@pytest.mark.parametrize("text", ["这家餐厅在河边，提供便宜的法国菜，评价很高，适合家庭", "ร้านอาหารนี้อยู่ริมแม่น้ำราคาถูก"])
def test_scripts_without_spaces_are_read_letter_by_letter(text: str) -> None:
    assert leaks([("q", f"x {text[2:18]} y")], [("p", text)])[0].kind == "words"


def test_nothing() -> None:
    assert leaks([], [("a", "b")]) == {}
    assert leaks([("a", "b")], []) == {}
