"""The city and its readers: invented, repeatable, common questions common."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from stepwell.demo import city
from stepwell.demo.traffic import MODEL, TENANTS, Ask, asks, num_distinct, zipf
from stepwell.quality.slots import facts_of

QUESTIONS = city.questions(200, seed=1)


def test_a_city_is_its_seed() -> None:
    assert city.questions(40, seed=7) == city.questions(40, seed=7)
    assert city.questions(40, seed=7) != city.questions(40, seed=8)


def test_a_question_is_written_as_e2e_writes_it() -> None:
    for mr in QUESTIONS:
        facts = facts_of(mr)
        assert list(facts) == [key for key in city.ATTRIBUTES if key in facts]
        assert facts["name"] in city.names()


def test_no_two_questions_are_equal() -> None:
    assert len(set(QUESTIONS)) == len(QUESTIONS) == 200 * len(city.VIEWS)


def test_names_run_out_with_an_error() -> None:
    with pytest.raises(ValueError, match="Sample larger"):
        city.venues(len(city.names()) + 1, seed=1)


@given(some.integers(1, 400), some.integers(0, 2**32), some.booleans())
def test_as_many_requests_as_asked_for(num: int, seed: int, each_once: bool) -> None:  # noqa: FBT001
    asked = asks(QUESTIONS, num, seed, each_once=each_once)
    assert len(asked) == num
    assert asked == asks(QUESTIONS, num, seed, each_once=each_once)
    assert {ask.tenant for ask in asked} <= set(TENANTS)
    assert num_distinct(asked) <= num


def test_each_once_leaves_no_question_unasked() -> None:
    assert {ask.mr for ask in asks(QUESTIONS, 2000, 1, each_once=True)} == set(QUESTIONS)


def test_common_questions_are_common() -> None:
    counts = Counter(ask.mr for ask in asks(QUESTIONS, 20_000, 1))
    first, tenth = (counts[QUESTIONS[rank - 1]] for rank in (1, 10))
    assert 8 < first / tenth < 16  # 10 ** 1.05 = 11.2


def test_the_ranks_weights_are_zipfs() -> None:
    assert zipf(3, 1.0) == pytest.approx([1, 1.5, 1.5 + 1 / 3])


def test_a_body_is_a_chat_request() -> None:
    body = msgspec.json.decode(Ask("name[The Amber Fox], area[riverside]", "guide-web", "reader-3", stream=True).body())
    assert body["model"] == MODEL
    assert body["messages"] == [{"role": "user", "content": "name[The Amber Fox], area[riverside]"}]
    assert body["stream"] is True
    assert body["temperature"] == 0
