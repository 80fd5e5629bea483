"""Rows in files: JSON Lines, or a folder of zstd Parquet shards that say how many they are.

In Parquet a column of dicts is JSON text, so that every shard has the same columns; the file's metadata names these
columns, and here they are dicts again. Written whole or not at all; a shard that is damaged or missing is told.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from stepwell.errors import StoreError

if TYPE_CHECKING:
    import polars as pl

Record = dict[str, Any]
SHARD_ROWS = 50_000
JSON_COLUMNS = "stepwell.json"
"""The key of a file's metadata that names its columns of JSON text, joined by commas."""
SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\.parquet")

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


def read(path: Path) -> Iterator[Record]:
    """The rows of a .jsonl or .parquet file, or of a folder of them. Raises StoreError with file and line."""
    for file in files(path):
        yield from lines(file) if file.suffix == ".jsonl" else shard(file)


def files(path: Path) -> list[Path]:
    """The files that hold a table's rows, in order. Raises StoreError where there is none, or a shard is missing."""
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix in {".jsonl", ".parquet"})
        if not found:
            raise StoreError(f"{path}: no .jsonl or .parquet file in this folder")
        check_shards(path, found)
        return found
    if not path.exists():
        raise StoreError(f"{path}: there is no such file or folder")
    if path.suffix not in {".jsonl", ".parquet"}:
        raise StoreError(f"{path}: rows are read from .jsonl, .parquet or a folder of them")
    return [path]


def check_shards(folder: Path, found: Iterable[Path]) -> None:
    """Raise StoreError where the shards' names tell of others that are not there."""
    told = [match for each in found if (match := SHARD.fullmatch(each.name))]
    if told:
        wanted = {int(match[2]) for match in told}
        missing = sorted(set(range(max(wanted))) - {int(match[1]) for match in told})
        if missing or len(wanted) > 1:
            what = f"shard {missing[0]} of {max(wanted)} is missing" if missing else "shards of two tables"
            raise StoreError(f"{folder}: {what}; copy the folder again, as a whole")


def lines(file: Path) -> Iterator[Record]:
    """The rows of a JSON Lines file, empty lines aside."""
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield row_of(text, file, number)
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from error


def row_of(line: bytes, file: Path, number: int) -> Record:
    """One line of JSON. Raises StoreError."""
    try:
        row = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else "; the file seems to be cut off here"
        raise StoreError(f"{file}: line {number} is not JSON ({error}){cut}") from error
    if not isinstance(row, dict):
        raise StoreError(f'{file}: line {number} is no JSON object; write one row a line: {{"prompt": …}}')
    return row


def shard(file: Path) -> Iterator[Record]:
    """The rows of a Parquet file."""
    import polars as pl  # noqa: PLC0415 - heavy
    from polars.exceptions import PanicException  # noqa: PLC0415

    try:
        frame = pl.read_parquet(file, memory_map=False)
        told = pl.read_parquet_metadata(file).get(JSON_COLUMNS, "")
    except (OSError, pl.exceptions.PolarsError, PanicException) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{file}: damaged or cut off ({why}); copy or write this shard again") from error
    json_columns = [name for name in told.split(",") if name in frame.columns]
    for number, row in enumerate(frame.iter_rows(named=True), 1):
        for name in json_columns:
            row[name] = json_of(row[name], file, number, name)
        yield row


def json_of(text: object, file: Path, number: int, name: str) -> Any:  # noqa: ANN401 - whatever was written
    """A cell of JSON text. Raises StoreError."""
    try:
        return None if text is None else decode(str(text))
    except msgspec.DecodeError as error:
        raise StoreError(f"{file}: row {number}: {name} is not JSON ({error})") from error


def write(
    path: Path, rows: Iterable[Mapping[str, Any]], *, shard_rows: int = SHARD_ROWS, like: type[Struct] | None = None
) -> list[Path]:
    """Write a .jsonl file, or a new folder of Parquet shards whose columns are `like`'s fields, or those of the rows.

    Raises StoreError where a folder holds something already, or a row does not fit the columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.part")
    if path.suffix == ".jsonl":
        with incoming.open("wb") as out:
            out.writelines(encode(row) + b"\n" for row in rows)
            out.flush()
            os.fsync(out.fileno())
        incoming.replace(path)
        return [path]
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{path} is there already: name a new folder, or take this one away")
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    names = write_shards(incoming, iter(rows), shard_rows, like)
    incoming.replace(path)
    return [path / name for name in names]


def write_shards(
    folder: Path, rows: Iterator[Mapping[str, Any]], shard_rows: int, like: type[Struct] | None
) -> list[str]:
    """Write the shards, then give each its name."""
    written: list[Path] = []
    columns = columns_like(like) if like else {}
    part = list(islice(rows, shard_rows))
    while part or not written:
        columns = columns or columns_of(part)
        file = folder / f"{len(written)}.part"
        write_shard(file, part, columns, len(written) * shard_rows)
        written.append(file)
        part = list(islice(rows, shard_rows))
    names = [f"rows-{at:05}-of-{len(written):05}.parquet" for at in range(len(written))]
    for file, name in zip(written, names, strict=True):
        file.replace(folder / name)
    return names


def write_shard(file: Path, rows: list[Mapping[str, Any]], columns: Mapping[str, Any], start: int) -> None:
    """One Parquet file, on the disk when this returns. `start` is the first row's number."""
    import polars as pl  # noqa: PLC0415

    for at, row in enumerate(rows):
        if unknown := row.keys() - columns.keys():
            raise StoreError(f"row {start + at + 1} has the column {min(unknown)!r}, which the rows before have not")
    json_columns = [name for name, kind in columns.items() if kind is None]
    cells = {name: [cell(row.get(name), kind) for row in rows] for name, kind in columns.items()}
    series = [column(name, cells[name], kind or pl.String, start) for name, kind in columns.items()]
    with file.open("wb") as out:
        pl.DataFrame(series).write_parquet(out, compression="zstd", metadata={JSON_COLUMNS: ",".join(json_columns)})
        out.flush()
        os.fsync(out.fileno())


def cell(value: object, kind: object) -> object:
    """A value as it stands in its column: JSON text where the column has no type of its own."""
    if kind is None:
        return None if value is None else encode(value).decode()
    return list(value) if isinstance(value, tuple) else value


def column(name: str, values: list[object], kind: Any, start: int) -> pl.Series:  # noqa: ANN401 - a type of polars
    """A typed column. Raises StoreError with the row of a value that does not fit."""
    import polars as pl  # noqa: PLC0415

    try:
        return pl.Series(name, values, dtype=kind)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        for at, value in enumerate(values):
            try:
                pl.Series(name, [value], dtype=kind)
            except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
                what = f"row {start + at + 1}: {name} is {value!r:.60}, where the column holds {kind}"
                raise StoreError(what) from error
        raise


def columns_like(kind: type[Struct]) -> dict[str, Any]:
    """A Struct's fields as columns; None stands for JSON text."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)  # noqa: S101 - what the annotation says
    return {field.encode_name: column_like(field.type) for field in info.fields}


def column_like(kind: msgspec.inspect.Type) -> Any:  # noqa: ANN401 - a type of polars
    """The column of a field."""
    import polars as pl  # noqa: PLC0415

    info = msgspec.inspect
    plain = {info.StrType: pl.String, info.LiteralType: pl.String, info.IntType: pl.Int64, info.FloatType: pl.Float64}
    match kind:
        case info.VarTupleType() | info.ListType():
            inner = column_like(kind.item_type)
            return None if inner is None else pl.List(inner)
        case info.StructType():
            return pl.Struct({field.encode_name: column_like(field.type) for field in kind.fields})
        case _:
            return plain.get(type(kind))


def columns_of(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns by what the rows hold; None, for JSON text, where that is not one plain kind."""
    import polars as pl  # noqa: PLC0415

    plain = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String}
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        kinds = {type(row[name]) for row in rows if row.get(name) is not None}
        if kinds == {int, float}:
            kinds = {float}
        columns[name] = plain.get(next(iter(kinds))) if len(kinds) == 1 else None if kinds else pl.String
    return columns
