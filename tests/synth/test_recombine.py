"""New prompts have the slots of one seen prompt and the values of others."""

from __future__ import annotations

import pytest

from stepwell.errors import DistillError
from stepwell.synth.recombine import recombined
from stepwell.synth.row import lacks, made
from stepwell.synth.slots import facts_key, read

NAMES = ("The Mill", "The Fox", "The Heron", "The Lamp")
FOODS = ("French", "Indian", "Thai")
ROWS = [
    made(
        f"name[{NAMES[at % 4]}], food[{FOODS[at % 3]}], near[{NAMES[(at + 1) % 4]}]", "x", source="seed", licence="CC0"
    )
    for at in range(12)
] + [made('Say {"city": "Rome", "guests": 2} now', "x", source="captured", licence="own", generator="g")]


def test_new_prompts_are_new_and_of_seen_parts() -> None:
    new = recombined(ROWS, 15, licence="CC0", seed=3)
    seen = {facts_key(row.prompt) for row in ROWS}
    keys = [facts_key(row.prompt) for row in new]
    assert len(new) == len(set(keys)) == 15
    assert not seen & set(keys)
    for row in new:
        found = read(row.prompt)
        assert found is not None
        assert found.slots == row.slots
        assert set(row.slots) == {"name", "food", "near"}
        assert row.slots["food"] in FOODS
        assert row.slots["name"] != row.slots["near"]
        assert set(row.parents) <= {each.id for each in ROWS}
        assert row.generation == 1
        assert lacks(row) == []
    assert new == recombined(ROWS, 15, licence="CC0", seed=3)


def test_json_slots_keep_their_place_and_types() -> None:
    rows = [made(f'Book {{"city": "{city}", "guests": {num}}}!', "x", source="seed", licence="CC0") for city, num in
            (("Rome", 2), ("Oslo", 5), ("Bern", 7))]  # fmt: skip
    for row in recombined(rows, 3, licence="CC0", seed=0):
        assert row.prompt.startswith('Book {"city": ')
        assert row.prompt.endswith("}!")
        assert isinstance(row.slots["guests"], int)


def test_too_few_combinations_are_an_error_that_says_how_many() -> None:
    with pytest.raises(DistillError, match="500 new prompts are wanted, and the slots of 13 seen ones give "):
        recombined(ROWS, 500, licence="CC0", seed=0)
    with pytest.raises(DistillError, match="the slots of 0 seen ones give 0"):
        recombined([made("hello", "x", source="seed", licence="CC0")], 1, licence="CC0", seed=0)
