"""A verifier complains of what is missing, wrong or made up, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import ConfigError
from stepwell.quality.verify import verifier

EAGLE = "name[The Eagle], food[French], area[riverside]"
RIGHT = "The Eagle serves French food by the riverside."


@pytest.mark.parametrize("name", ["slots", "slots_apart"])
def test_the_slot_checkers_see_each_kind_of_error(name: str) -> None:
    verify = verifier(name)
    assert verify(EAGLE, RIGHT) == []
    assert verify(EAGLE, "The Eagle serves French food.") == ["area is missing"]
    assert verify(EAGLE, "The Eagle serves Italian food by the riverside.") == ["food is wrong"]
    assert verify(EAGLE, RIGHT[:-1] + ", and it is cheap.") == ["priceRange is added"]
    assert verify(EAGLE, " ") == ["the completion is empty"]
    assert verify("Tell me something", "No.") == ["the prompt has no facts"]
    assert verify(EAGLE + ", wifi[yes]", RIGHT) == ["wifi is no slot of the checker"]


def test_values_are_looked_for_letter_by_letter() -> None:
    verify = verifier("values")
    assert verify("inform(game[Portal 2], year[2011])", "Portal 2 came out in 2011.") == []
    assert verify("game[Portal 2], year[2011]", "Portal came out in 2011.") == ["game is missing: Portal 2"]
    assert verify("hello", "hello") == ["the prompt has no facts"]


@given(st.text(), st.text())
def test_no_text_breaks_a_verifier(prompt: str, completion: str) -> None:
    for name in ("slots", "slots_apart", "values"):
        assert all(isinstance(each, str) for each in verifier(name)(prompt, completion))


def test_a_function_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_checks.py").write_text(
        "def lists(prompt, completion):\n    return [] if prompt in completion else ['prompt is missing']\n"
        "def says(prompt, completion):\n    return prompt in completion\n"
        "def odd(prompt, completion):\n    return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert verifier("my_checks:lists")("a", "b") == ["prompt is missing"]
    assert verifier("my_checks:says")("a", "b") == ["my_checks:says says no"]
    assert verifier("my_checks:says")("a", "ab") == []
    assert verifier("my_checks:odd")("a", "b") == [
        "my_checks:odd told 7, neither a list of complaints nor true or false"
    ]


@pytest.mark.parametrize("name", ["slot", "", "no_such_module:x", "os:nothing", "os:"])
def test_an_unknown_verifier_is_told_with_its_field(name: str) -> None:
    with pytest.raises(ConfigError) as told:
        verifier(name, field="synth.filters.verify")
    assert told.value.field == "synth.filters.verify"
