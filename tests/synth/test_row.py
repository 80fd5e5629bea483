"""A row knows where it came from, and says what of that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from stepwell.errors import StoreError
from stepwell.store import tables
from stepwell.synth.row import Row, lacks, made, read, write

SEED = made("name[The Mill]", "The Mill is here.", source="seed", licence="CC0")
GROWN = made(
    "name[The Fox]",
    "The Fox is here.",
    source="grown",
    licence="CC0",
    generator="m",
    generator_rev="1",
    params={"temperature": 0.7},
    parents=(SEED.id,),
    generation=1,
)


def test_a_whole_row_lacks_nothing() -> None:
    assert lacks(SEED) == []
    assert lacks(GROWN) == []
    assert [turn.role for turn in SEED.messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"licence": ""}, "licence"),
        ({"prompt": "another"}, "prompt_hash"),
        ({"generator": ""}, "generator"),
        ({"generator_rev": ""}, "generator_rev"),
        ({"params": {}}, "params"),
        ({"parents": ()}, "parents"),
        ({"generation": 0}, "generation"),
        ({"usd": -1.0}, "usd"),
        ({"id": ""}, "id"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, object], missing: str) -> None:
    assert lacks(replace(GROWN, **change)) == [missing]


def test_rows_go_to_disk_and_back(tmp_path: Path) -> None:
    rows = [SEED, GROWN]
    write(tmp_path / "rows", rows, shard_rows=1)
    write(tmp_path / "rows.jsonl", rows)
    assert list(read(tmp_path / "rows")) == list(read(tmp_path / "rows.jsonl")) == rows


def test_an_empty_table_is_one_too(tmp_path: Path) -> None:
    write(tmp_path / "rows", [])
    assert list(read(tmp_path / "rows")) == []


def test_a_row_without_a_field_is_told_with_its_number(tmp_path: Path) -> None:
    tables.write(tmp_path / "rows.jsonl", [{"id": "a", "prompt": "p", "completion": "c", "source": "seed"}])
    with pytest.raises(StoreError, match=r"rows.jsonl: row 1: .*licence"):
        list(read(tmp_path / "rows.jsonl"))


def test_the_same_example_has_the_same_id_wherever_it_is_made() -> None:
    again: Row = made("name[The Mill]", "The Mill is here.", source="seed", licence="CC0")
    assert again == SEED
    assert made("name[The Mill]", "The Mill is here!", source="seed", licence="CC0").id != SEED.id
