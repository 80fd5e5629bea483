"""Fill a template for an audience of any size, batch by batch, in bounded memory, from a table to a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
from msgspec import Struct
from polars.exceptions import PolarsError

from stepwell.errors import TemplateError
from stepwell.templates import structure
from stepwell.templates.columns import RESULT, fill
from stepwell.templates.escape import Sink
from stepwell.templates.fill import load
from stepwell.templates.rows import FORMATS, READER

BATCH_ROWS = 100_000
TEMPLATE = " template"
"""A column beside the slots', which have no spaces."""
Watch = Callable[[int], None]
"""Told how many rows of a batch are done."""


class Wanted(Struct, frozen=True):
    """What to fill."""

    bundle: bytes
    template: str = ""
    """Empty: for each row the template that says what the row says."""
    sink: Sink = "plain"
    reader: str = READER


class Counts(Struct, frozen=True):
    """What came of it."""

    rows: int = 0
    filled: int = 0


def run(audience: Path, out: Path, wanted: Wanted, watch: Watch = lambda _: None) -> Counts:
    """Write one row a reader (`reader, text, variant, reason`); the file appears when it is whole.

    Raises TemplateError where a table cannot be read or written, or has no column for a slot and no way without it.
    """
    incoming = out.with_name(f".{out.name}.part")
    counts = Counts()
    try:
        batches = (counted(filled(frame, wanted), watch) for frame in frames(audience))
        counts = write(batches, incoming, out.suffix)
        incoming.replace(out)
    except (OSError, PolarsError) as error:
        what = f"cannot be filled: {' '.join(str(error).split())[:300]}"
        raise TemplateError(what, file=f"{audience} to {out}") from error
    finally:
        incoming.unlink(missing_ok=True)
    return counts


def frames(audience: Path) -> Iterator[pl.DataFrame]:
    """A table in batches."""
    if audience.suffix not in FORMATS:
        raise TemplateError(f"must end in {', '.join(FORMATS)}", file=str(audience))
    if not audience.is_file():
        raise TemplateError("there is no such file", file=str(audience))
    if audience.suffix == ".csv":
        lazy = pl.scan_csv(audience, infer_schema=False)  # 007 is a name, too: slots say what is a number
    else:
        lazy = pl.scan_ndjson(audience) if audience.suffix == ".jsonl" else pl.scan_parquet(audience)
    for frame in lazy.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        yield from frame.iter_slices(BATCH_ROWS)


def filled(frame: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    """The texts of a batch, in its order."""
    if wanted.template:
        return fill(wanted.bundle, wanted.template, frame, sink=wanted.sink, reader=wanted.reader)
    table = frame.with_columns(named(frame, load(wanted.bundle).names, wanted.reader)).with_row_index(" row")
    parts = [
        fill(wanted.bundle, str(name), part, sink=wanted.sink, reader=wanted.reader).with_columns(part[" row"])
        for (name,), part in table.partition_by(TEMPLATE, as_dict=True).items()
    ]
    return pl.concat(parts).sort(" row").drop(" row") if parts else pl.DataFrame(schema=RESULT)


def named(frame: pl.DataFrame, names: Sequence[str], reader: str) -> pl.Series:
    """For each row the template that says what the row says, or ""; looked up once for each kind of row."""
    index = structure.index(names)
    fixed = {slot for name in names for slot, value in structure.read(name).items() if value is not None}
    given = {name: pl.col(name).cast(pl.String).fill_null("") for name in frame.columns if name != reader}
    kinds = frame.select(**{name: value if name in fixed else value != "" for name, value in given.items()})
    if not kinds.width:
        return pl.Series(TEMPLATE, [""] * frame.height, dtype=pl.String)
    known = kinds.unique()
    found = [
        index.find({name: value or None for name, value in row.items()}) or "" for row in known.iter_rows(named=True)
    ]
    table = known.with_columns(pl.Series(TEMPLATE, found, dtype=pl.String))
    return kinds.join(table, on=kinds.columns, how="left", maintain_order="left")[TEMPLATE]


def counted(frame: pl.DataFrame, watch: Watch) -> pl.DataFrame:
    """The same batch, told of."""
    watch(frame.height)
    return frame


def write(batches: Iterator[pl.DataFrame], out: Path, suffix: str) -> Counts:
    """Write batches one after the other: Parquet through Arrow's writer, or JSONL."""
    if suffix not in {".parquet", ".jsonl"}:
        raise TemplateError("the output must end in .parquet or .jsonl", file=str(out))
    rows = texts = 0

    def each() -> Iterator[pl.DataFrame]:
        nonlocal rows, texts
        for batch in batches:
            rows += batch.height
            texts += batch.height - batch["text"].null_count()
            yield batch

    if suffix == ".jsonl":
        with out.open("wb") as file:
            for batch in each():
                batch.write_ndjson(file)
        return Counts(rows, texts)
    source = each()
    lazy = pl.io.plugins.register_io_source(lambda *_: source, schema=RESULT)
    lazy.sink_parquet(out, compression="zstd", compression_level=1)
    return Counts(rows, texts)
