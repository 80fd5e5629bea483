"""Each filter takes out what it is there for, says why, and leaves the rest."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import ConfigError, DistillError
from stepwell.quality.refusals import is_refusal, other_language
from stepwell.quality.verify import verifier
from stepwell.synth import filters, round_trip
from stepwell.synth.meaning import likenesses
from stepwell.synth.recipe import Filters, Quota, Synth
from stepwell.synth.row import Row, made
from stepwell.synth.samplers import Slot


def row(prompt: str = "p", completion: str = "c", source: Any = "sampled", **known: Any) -> Row:
    known = {"generation": int(source not in {"seed", "captured"}), **known}
    return made(prompt, completion, source=source, licence="CC0", **known)


def test_faults_of_the_making() -> None:
    rows = [row(), row(filters={"written": "empty"}), row(filters={"verify": "kept"})]
    assert filters.made_right(rows) == {1: "empty"}


def test_generations() -> None:
    rows = [row(generation=at) for at in range(4)]
    assert filters.young(2)(rows) == {3: "generation 3, and 2 is the last"}


def test_slots_nobody_knows() -> None:
    synth = Synth(
        slots={"food": Slot(choices=("French",)), "name": Slot(parts=(("The ",), ("Mill",))), "n": Slot(range=(1, 2))}
    )
    rows = [
        row(source="seed", slots={"food": "Thai", "area": "river"}),
        row(slots={"food": "French", "name": "Any", "area": "hill", "n": 7}),
        row(slots={"food": "Thai"}),
        row(slots={"food": "Greek"}),
        row(slots={"fod": "Greek"}),
        row(slots={"name": " "}),
    ]
    assert filters.known_slots(synth)(rows) == {3: "food is never 'Greek'", 4: "no slot 'fod'", 5: "name is empty"}
    assert filters.known_slots(Synth())([row(slots={"any": "x"})]) == {}


def test_refusals_and_other_languages() -> None:
    rows = [
        row(completion="I'm sorry, but I can't help with that."),
        row(completion="Das Restaurant liegt am Fluss und ist nicht billig."),
        row(completion="Ресторан у реки"),
        row(completion="It is near the river."),
        row(completion="Chez Nous"),
        row(completion=""),
    ]
    assert filters.answers(Filters(language="en"))(rows) == {
        0: "refused: I'm sorry, but I can't help with that.", 1: "in de, not en", 2: "in cyrillic, not en"}  # fmt: skip
    assert set(filters.answers(Filters())(rows)) == {0}
    assert filters.answers(Filters(refusals=False))(rows) == {}


@pytest.mark.parametrize(
    "text",
    ["As an AI language model, I have no taste.", "I cannot assist with this.", "Sorry, I am unable to help you",
     "I’m sorry, I can’t do that request.", "Es tut mir leid, das kann ich nicht.", "Lo siento, pero no puedo hacer eso.",
     "Je ne peux pas répondre.", "Unfortunately, I won't write this."],
)  # fmt: skip
def test_refusals_are_seen(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    ["I can't believe how good The Mill is.", "I can't help but wonder why.", "Sorry Sam's is a pub.", "Unfortunately The Fox is expensive.",
     "The Mill cannot help being loved.", "", "I am a pub near the river.",
     "Sorry, I can't book a table for you. Do you need anything else?", "Unfortunately, I can't do that at 6 pm."],
)  # fmt: skip
def test_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@given(st.text(max_size=400))
def test_any_text_may_be_asked(text: str) -> None:
    is_refusal(text)
    assert other_language(text, "en") != "en"


@pytest.mark.parametrize(
    "text",
    ["Browns Cambridge provides take away as well as stay in dining.", "El Toro is a pub", "Le Café",
     "Please confirm your table at Los Reyes Restaurante Y Cantina at Vacaville today.",
     "Alimentum is a burger joint that is cheap as well as family friendly"],
)  # fmt: skip
def test_english_with_words_of_others_is_english(text: str) -> None:
    assert other_language(text, "en") == ""


def test_a_script_may_be_wanted() -> None:
    assert other_language("Ресторан у реки", "cyrillic") == ""
    assert other_language("The pub is in the town", "cyrillic") == "en"


def test_what_the_verifier_says() -> None:
    rows = [row("name[The Mill]", "The Fox"), row("name[The Mill]", "The Mill"), row("name[The Mill]", "")]
    assert filters.verified(verifier("values"))(rows) == {0: "name is missing: The Mill"}


def test_exact_and_near_duplicates() -> None:
    long = "The Mill is a cheap pub near the river that families love and where everybody meets in the evening"
    rows = [row("a b", "c"), row("a  b", "c "), row("q", long), row("other", long + " now"), row("q2", "")]
    assert filters.exact(rows) == {1: f"the same as {rows[0].id}"}
    assert filters.near(0.5, 5)(rows) == {1: f"1.00 like {rows[0].id}", 3: f"0.83 like {rows[2].id}"}
    facts = [row(f"name[{name}], food[French], area[riverside], eatType[pub]", "") for name in ("A", "B")]
    assert filters.near(0.1, 1)(facts) == {}, "facts without a completion are no texts"


def test_too_short_and_too_long() -> None:
    assert filters.long_enough(2, 3)([row(completion=text) for text in ("a", "a b", "a b c d", "")]) == {
        0: "1 words, and 2 to 3 may be", 2: "4 words, and 2 to 3 may be"}  # fmt: skip


def real_rows(num: int) -> list[Row]:
    chance = random.Random(0)
    words = ("The Mill", "The Fox"), ("cheap", "good"), ("pub", "bar"), ("river", "park", "market")
    return [row(str(at), "{} is a {} {} near the {}.".format(*map(chance.choice, words)), "seed") for at in range(num)]


def test_perplexity_by_people() -> None:
    rows = [
        *real_rows(100),
        row(completion="The Fox is a good bar near the park."),
        row(completion="xq zzv river the the"),
    ]
    assert set(filters.unsurprising(0.0, 1.0, None)(rows)) == {101}
    with pytest.raises(DistillError, match="49 completions of people are too few"):
        filters.unsurprising(0.0, 1.0, None)(real_rows(49))


def test_perplexity_by_a_model() -> None:
    rows = [*real_rows(100), row(completion="x")]
    deaths = filters.unsurprising(0.1, 0.9, lambda texts: [float(len(text)) for text in texts])(rows)
    assert 100 in deaths
    assert 0 < len(deaths) < 40


def test_quotas() -> None:
    rows = [row(str(at), slots={"food": food}) for at, food in enumerate(["a", "a", "b", "a", "c", "c"])] + [row("x")]
    quota = Quota(by="food", most=2, rows={"c": 1})
    assert filters.within(quota, ())(rows) == {3: "food 'a' has its 2 rows", 5: "food 'c' has its 1 rows"}
    with pytest.raises(DistillError, match=r"2 rows are wanted of each food, and 'b' has 1, 'c' has 1, 'd' has 0"):
        filters.within(Quota(by="food", least=2, rows={"c": 1}), ("a", "b", "d"))(rows)


@given(st.lists(st.booleans(), max_size=40), st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]))
def test_the_floor_of_real_rows_holds_and_takes_no_more_than_it_must(real: list[bool], floor: float) -> None:
    rows = [row(str(at), source="seed" if each else "sampled") for at, each in enumerate(real)]
    dead = filters.grounded(floor)(rows)
    staying = [each for at, each in enumerate(real) if at not in dead]
    assert sum(real) == sum(staying)
    if staying:
        assert sum(staying) / len(staying) >= floor - 1e-9
    if dead:
        assert sum(staying) / (len(staying) + 1) < floor


def test_values_come_back() -> None:
    rows = [
        row("1", "The Old Mill is French and cheap.", slots={"name": "The Old Mill", "food": "French", "dogs": "yes"}),
        row("2", "The Fox is Thai.", slots={"name": "The Fox", "food": "French"}),
        row("3", "The Fox is FRENCH.", slots={"name": "The Fox", "food": "French"}),
        row("4", "", slots={"name": "Mill", "food": "Thai"}),
    ]
    assert round_trip.by_values(rows) == {1: "food does not come back; food comes back as 'thai'"}


def test_slots_by_a_function_of_your_own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reader.py").write_text(
        "def read(text):\n    return dict(each.split('=') for each in text.split())\ndef odd(text):\n    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [row("1", "a=1 b=2", slots={"a": 1, "b": "2"}), row("2", "a=2 c=3", slots={"a": "1", "b": "2"})]
    assert round_trip.by_yours("my_reader:read")(rows) == {
        1: "b does not come back; a comes back as '2'; c comes back as '3'"}  # fmt: skip
    with pytest.raises(ConfigError, match="told 3, not slots by name"):
        round_trip.by_yours("my_reader:odd")(rows)
    with pytest.raises(ConfigError):
        round_trip.by_yours("my_reader:none")


@given(st.integers(0, 100), st.sampled_from([0.5, 0.8, 0.95]))
def test_embeddings_that_stay_are_far_apart(seed: int, threshold: float) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(40, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = likenesses(vectors, threshold)
    staying = [at for at in range(40) if at not in found]
    cosines = vectors[staying] @ vectors[staying].T
    assert (cosines[~np.eye(len(staying), dtype=bool)] < threshold + 1e-6).all()
    for at, (of, cosine) in found.items():
        assert of < at
        assert of not in found
        assert cosine == pytest.approx(float(vectors[at] @ vectors[of]), abs=1e-5)
        assert cosine >= threshold - 1e-6
