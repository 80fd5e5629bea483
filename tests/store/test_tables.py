"""Rows go to disk whole or not at all, come back as they were, and a damaged file is told with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from stepwell.errors import StoreError
from stepwell.store import tables

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": WORDS,
            "prompt": WORDS,
            "usd": st.floats(allow_nan=False, allow_infinity=False),
            "tokens": st.integers(-(2**53), 2**53),
            "slots": st.dictionaries(WORDS, st.one_of(WORDS, st.integers(-5, 5), st.none()), max_size=3),
            "turns": st.lists(st.fixed_dictionaries({"role": WORDS, "content": WORDS}), max_size=2),
            "parents": st.lists(WORDS, max_size=2),
        }
    ),
    max_size=7,
)


class Turn(Struct):
    role: str
    content: str


class Like(Struct):
    id: str
    prompt: str
    usd: float
    tokens: int
    slots: dict[str, Any]
    turns: tuple[Turn, ...]
    parents: tuple[str, ...]


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, shard_rows=st.integers(1, 4), like=st.sampled_from([None, Like]))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tables.Record], shard_rows: int, like: type[Struct] | None
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    written = tables.write(folder / "rows", rows, shard_rows=shard_rows, like=like)
    assert len(written) == max(1, -(-len(rows) // shard_rows))
    assert list(tables.read(folder / "rows")) == rows
    assert tables.write(folder / "rows.jsonl", rows) == [folder / "rows.jsonl"]
    assert list(tables.read(folder / "rows.jsonl")) == rows


def test_every_shard_has_the_same_columns_whatever_it_holds(tmp_path: Path) -> None:
    bare = {"id": "a", "prompt": "p", "usd": 1, "tokens": 1, "slots": {}, "turns": [], "parents": []}
    full = {**bare, "slots": {"x": 1}, "turns": [{"role": "user", "content": "hi"}], "parents": ["a"]}
    shards = tables.write(tmp_path / "rows", [bare, full], shard_rows=1, like=Like)
    first, second = (pl.read_parquet_schema(shard) for shard in shards)
    assert first == second
    assert first["turns"] == pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    assert first["slots"] == pl.String


def test_a_shard_that_was_cut_off_is_told_by_name(tmp_path: Path) -> None:
    shards = tables.write(tmp_path / "rows", ({"prompt": f"row {at}"} for at in range(300)), shard_rows=100)
    whole = shards[1].read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        shards[1].write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"rows-00001-of-00003\.parquet: damaged or cut off"):
            list(tables.read(tmp_path / "rows"))


def test_bytes_turned_inside_a_shard_are_an_error_or_the_same_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"row {at}"} for at in range(300)]
    (shard,) = tables.write(tmp_path / "rows", rows)
    whole = shard.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            found = list(tables.read(tmp_path / "rows"))
        except StoreError:
            continue
        assert len(found) == len(rows)


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    shards = tables.write(tmp_path / "rows", ({"prompt": str(at)} for at in range(3)), shard_rows=1)
    shards[2].unlink()
    with pytest.raises(StoreError, match="shard 2 of 3 is missing"):
        list(tables.read(tmp_path / "rows"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"a": 1}\n{"a": ', "line 2 is not JSON .* the file seems to be cut off here"),
        (b'{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        (b'{"a": "\xff"}\n', "line 1 is not JSON"),
    ],
)
def test_a_wrong_line_is_told_by_number(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(text)
    with pytest.raises(StoreError, match=told):
        list(tables.read(tmp_path / "rows.jsonl"))


def test_where_there_are_no_rows_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").touch()
    for name, told in (
        ("no.jsonl", "no such file"),
        ("no", "no such file or folder"),
        ("a.csv", "are read from"),
        ("empty", "no .jsonl or .parquet file"),
    ):
        with pytest.raises(StoreError, match=told):
            list(tables.read(tmp_path / name))


def test_empty_lines_and_a_mark_of_order_are_read_over(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": 2}')
    assert list(tables.read(tmp_path / "rows.jsonl")) == [{"a": 1}, {"a": 2}]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    tables.write(tmp_path / "rows", [{"a": 1}])
    with pytest.raises(StoreError, match="is there already"):
        tables.write(tmp_path / "rows", [{"a": 2}])
    assert list(tables.read(tmp_path / "rows")) == [{"a": 1}]


def test_a_row_that_does_not_fit_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": 2}, {"a": "three"}]
    with pytest.raises(StoreError, match="row 3: a is 'three'"):
        tables.write(tmp_path / "rows", rows, shard_rows=2)
    with pytest.raises(StoreError, match="row 2 has the column 'b'"):
        tables.write(tmp_path / "rows", [{"a": 1}, {"b": 1}], shard_rows=1)
    assert not (tmp_path / "rows").exists()


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    tables.write(tmp_path / "rows.jsonl", [{"a": 1}])

    def broken() -> Any:
        yield {"a": 2}
        raise RuntimeError("power")

    with pytest.raises(RuntimeError):
        tables.write(tmp_path / "rows.jsonl", broken())
    assert list(tables.read(tmp_path / "rows.jsonl")) == [{"a": 1}]
