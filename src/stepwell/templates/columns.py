"""Fill a bundle's blanks for whole columns: the columnar runtime of docs/bundle.md, on polars.

Each distinct value is written once by the scalar runtime, plain strings are taken as they are, and whatever a column
cannot say (a missing value, a policy) is left to the scalar runtime row by row: so the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any
from zlib import crc32

import polars as pl

from stepwell.templates.choose import place_of
from stepwell.templates.escape import Sink
from stepwell.templates.fill import Filled, Filler, Template, load
from stepwell.templates.ops import Write

PLAIN: dict[Sink, str] = {
    "plain": "!-~",
    "html": "!#-%(-;?-_a-~",
    "attribute": "!#-%(-;?-_a-~",
    "json": r"!#-%'-;=?-\[\]-~",
    "url": "A-Za-z0-9_.!~*'()-",
    "sms": "!-~",
}
"""Visible characters (ASCII) that a sink leaves as they are."""
RESULT = {"reader": pl.String, "text": pl.String, "variant": pl.UInt16, "reason": pl.String}


def fill(data: bytes, name: str, frame: pl.DataFrame, *, sink: Sink = "plain", reader: str = "reader") -> pl.DataFrame:
    """One row a reader, in order: `reader, text, variant, reason`; text or reason is null. Raises TemplateError.

    `frame` has a column for each slot; others are ignored. Without the column `reader` every reader is "".
    """
    filler = load(data, sink)
    template = filler.templates.get(name)
    readers = frame[reader].cast(pl.String).fill_null("") if reader in frame.columns else None
    readers = constant("", frame.height, pl.String) if readers is None else readers
    if template is None:
        nothing, why = pl.lit(None), f"no template is called {name}" if name else "no template says what this row says"
        return typed(pl.select(readers.alias("reader"), text=nothing, variant=nothing, reason=pl.lit(why)))
    slots = [slot for slot in sorted(filler.slots(name)) if slot in frame.columns]
    # A column that nobody reads keeps the number of rows where there is no slot's.
    values = pl.DataFrame([constant(0, frame.height, pl.UInt8).alias(" "), *(plain(frame[slot]) for slot in slots)])
    texts = filled(filler, template, values, chosen(template, readers), sink)
    return mended(filler, name, values, readers.alias("reader"), texts)


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    """A result in its types."""
    return frame.select(*(pl.col(name).cast(kind) for name, kind in RESULT.items()))


def plain(column: pl.Series) -> pl.Series:
    """A column in the types that values have: strings and numbers."""
    if column.dtype == pl.Date:
        return column.dt.strftime("%Y-%m-%d")
    if column.dtype.is_temporal():
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S")
    if column.dtype.is_decimal():
        return column.cast(pl.Float64)
    return column.cast(pl.String) if column.dtype in {pl.Categorical, pl.Enum} else column


def chosen(template: Template, readers: pl.Series) -> pl.Series:
    """The variant of each reader."""
    if len(template.variants) == 1:
        return constant(0, len(readers), pl.UInt16)
    total = template.sums[-1]
    hashes = pl.Series(map(crc32, readers.cast(pl.Binary), repeat(template.start)), dtype=pl.UInt32)
    variants = (place_of(template.sums, at) for at in range(total))
    table = pl.Series(variants, dtype=pl.UInt16)
    spread = (hashes.cast(pl.UInt64) * 2654435761) % (1 << 32)
    return table.gather((spread * total) // (1 << 32))


def filled(filler: Filler, template: Template, values: pl.DataFrame, variants: pl.Series, sink: Sink) -> pl.DataFrame:
    """Columns `text` (null where the scalar runtime must look) and `variant`."""
    blanks = dict.fromkeys(blank for _, table in template.variants for _, pattern in table for blank in pattern)
    names = {blank: f"blank{place}" for place, blank in enumerate(blanks)}
    columns = [written(values, slot, write, filler, sink).alias(names[slot, write]) for slot, write in blanks]
    cells, patterns = cells_of(filler, template, values, variants)
    table = pl.DataFrame([cells.alias("cell"), variants.alias("variant"), *columns]).with_row_index("row")
    parts = []
    for (cell,), part in table.partition_by("cell", as_dict=True, include_key=False).items():
        text = pl.lit(None, dtype=pl.String)
        if cell is not None:
            format_, used = patterns[int(str(cell))]
            literals = format_.replace("%%", "\0").split("%s")
            pieces = chain.from_iterable(
                (pl.lit(literal.replace("\0", "%")), pl.col(names[blank]))
                for literal, blank in zip(literals, used, strict=False)
            )
            text = pl.concat_str(*pieces, pl.lit(literals[-1].replace("\0", "%")))
        parts.append(part.select("row", "variant", text.alias("text")))
    return pl.concat(parts).sort("row") if parts else table.select("row", "variant", text=pl.lit(""))


def written(values: pl.DataFrame, slot: str, write: Write, filler: Filler, sink: Sink) -> pl.Series:
    """A blank's text for each row; null where there is none."""
    default = write(filler.default[slot]) if slot in filler.default else None
    if slot not in values.columns:
        return constant(default, values.height, pl.String)
    column = values[slot]
    if column.dtype != pl.String or write not in filler.limits:
        return or_default(mapped(column, write, pl.String), default)
    safe = PLAIN[sink]
    spaced = safe if sink == "url" else f" {safe}"
    fits = column.str.len_bytes() <= filler.limits[write]
    as_is = (column.str.contains(f"^[{safe}]([{spaced}]*[{safe}])?$") & fits).fill_null(value=False)
    if as_is.all():
        return column
    rest = pl.select(pl.when(~as_is).then(column)).to_series()
    return or_default(column.zip_with(as_is, mapped(rest, write, pl.String)), default)


def or_default(column: pl.Series, default: str | int | None) -> pl.Series:
    """A column with the policy's default where it has nothing."""
    return column if default is None else column.fill_null(default)


def constant(value: str | int | None, num: int, kind: type[pl.DataType]) -> pl.Series:
    """A column that says the same everywhere."""
    return pl.Series([value], dtype=kind).new_from_index(0, num)


def mapped(column: pl.Series, make: Callable[[object], Any], kind: type[pl.DataType]) -> pl.Series:
    """What a scalar function makes of each value, called once for each distinct one."""
    distinct = column.unique().drop_nulls()
    if not len(distinct):
        return constant(None, len(column), kind)
    made = pl.Series([make(value) for value in distinct], dtype=kind)
    return column.replace_strict(distinct, made, default=None, return_dtype=kind)


def cells_of(
    filler: Filler, template: Template, values: pl.DataFrame, variants: pl.Series
) -> tuple[pl.Series, Sequence[tuple[str, tuple[tuple[str, Write], ...]]]]:
    """For each row the place of its pattern among all patterns; null where a selector fails."""
    classes: dict[object, pl.Series] = {}
    patterns: list[tuple[str, tuple[tuple[str, Write], ...]]] = []
    offsets = []
    cells = []
    for choosers, table in template.variants:
        offsets.append(len(patterns))
        patterns += table
        cell: Any = pl.lit(0, dtype=pl.UInt32)
        for slot, classify, size in choosers:
            if classify not in classes:
                classes[classify] = classed(values, slot, classify, filler)
            cell = cell * size + pl.col(f"class{list(classes).index(classify)}")
        cells.append(cell)
    table_ = pl.DataFrame(
        [variants.alias("v"), *(each.alias(f"class{at}") for at, each in enumerate(classes.values()))]
    )
    return one_of(table_, cells, offsets), patterns


def one_of(table: pl.DataFrame, cells: Sequence[Any], offsets: Sequence[int]) -> pl.Series:
    """The cell that each row's own variant says."""
    own = pl.lit(None, dtype=pl.UInt32)
    for place in reversed(range(len(cells))):
        own = pl.when(pl.col("v") == place).then(cells[place] + offsets[place]).otherwise(own)
    return table.select(own.cast(pl.UInt32).alias("cell")).to_series()


def classed(values: pl.DataFrame, slot: str, classify: Callable[[object], int | None], filler: Filler) -> pl.Series:
    """A selector's class for each row; null where there is none."""
    default = classify(filler.default[slot]) if slot in filler.default else None
    if slot not in values.columns:
        return constant(default, values.height, pl.UInt32)
    return or_default(mapped(values[slot], classify, pl.UInt32), default)


def mended(filler: Filler, name: str, values: pl.DataFrame, readers: pl.Series, texts: pl.DataFrame) -> pl.DataFrame:
    """The result; rows without a text are given to the scalar runtime, which knows the policies and the reasons."""
    result = texts.select(readers, "text", "variant", pl.lit(None, dtype=pl.String).alias("reason"))
    failed = result["text"].is_null()
    if not failed.any():
        return typed(result)
    rows = values.filter(failed).iter_rows(named=True)
    outcomes = [filler.fill(name, row, reader) for row, reader in zip(rows, readers.filter(failed), strict=True)]
    text = [each.text if isinstance(each, Filled) else None for each in outcomes]
    variant = [each.variant if isinstance(each, Filled) else None for each in outcomes]
    reason = [None if isinstance(each, Filled) else f"{each.slot}: {each.why}" for each in outcomes]
    at = failed.arg_true()
    return typed(result).with_columns(
        result["text"].scatter(at, text),
        result["variant"].cast(pl.UInt16).scatter(at, pl.Series(variant, dtype=pl.UInt16)),
        result["reason"].scatter(at, pl.Series(reason, dtype=pl.String)),
    )
