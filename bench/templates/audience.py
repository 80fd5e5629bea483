"""A campaign's last step: a million readers filled, and written as Parquet, on two threads."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

ROUNDS = 5
NUM_READERS = 1_000_000
NUM_VARIANTS = 24
MESSAGE = (
    ".input {{$wins :integer}}\n.input {{$place :integer select=ordinal}}\n.input {{$kind :string}}\n"
    ".match $kind $wins $place\n"
    "cup one one {{{{{opening} {{$name}}: one win, and you are {{$place}}st in the cup.}}}}\n"
    "cup * one {{{{{opening} {{$name}}: {{$wins}} wins, and you are {{$place}}st in the cup.}}}}\n"
    "cup * two {{{{{opening} {{$name}}: {{$wins}} wins, and you are {{$place}}nd in the cup.}}}}\n"
    "cup * few {{{{{opening} {{$name}}: {{$wins}} wins, and you are {{$place}}rd in the cup.}}}}\n"
    "cup one * {{{{{opening} {{$name}}: one win, and you are {{$place}}th in the cup.}}}}\n"
    "cup * * {{{{{opening} {{$name}}: {{$wins}} wins, and you are {{$place}}th in the cup.}}}}\n"
    "* one * {{{{{opening} {{$name}}: one win in the league.}}}}\n"
    "* * * {{{{{opening} {{$name}}: {{$wins}} wins in the league.}}}}"
)
"""Plural, ordinal, select and number in one message."""
OPENINGS = tuple(
    f"{first} {second}"
    for first in ("Well done", "Look", "News", "Hello", "Great", "So")
    for second in ("dear", "now", "again", "here")
)


def bundle_of_24() -> bytes:
    """One template of 24 variants."""
    from stepwell.templates.compile import bundle  # noqa: PLC0415
    from stepwell.templates.schema import Schema, Slot  # noqa: PLC0415

    slots = (
        Slot(name="name", kind="text"),
        Slot(name="wins", kind="number", low=0, high=10_000),
        Slot(name="place", kind="number", low=1, high=100),
        Slot(name="kind", kind="choice", values=("cup", "league")),
    )
    sources = [MESSAGE.format(opening=opening) for opening in OPENINGS]
    return bundle(Schema(name="wins", slots=slots), "en", {"result": sources})


def measure() -> dict[str, float]:
    """Seconds in a process of its own, whose polars has two threads: medians of some rounds."""
    environment = os.environ | {"POLARS_MAX_THREADS": "2"}
    command = [sys.executable, "-m", "bench.templates.audience"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"  filled in {figures['fill_1m_s']:.2f} s, filled and written in {figures['write_1m_s']:.2f} s")
    return figures


def main() -> None:
    """Fill an audience that is in memory, and one from file to file."""
    import polars as pl  # noqa: PLC0415 - after its number of threads is known

    from stepwell.templates import audience, columns  # noqa: PLC0415

    data = bundle_of_24()
    numbers = pl.int_range(NUM_READERS, eager=True)
    frame = pl.DataFrame(
        {
            "reader": "reader-" + numbers.cast(pl.String),
            "name": "Name " + (numbers * 7919 % 1_000_003).cast(pl.String),
            "wins": numbers * 31 % 977,
            "place": numbers * 17 % 99 + 1,
            "kind": pl.Series(["cup", "league", "cup"]).gather(numbers % 3),
        }
    )
    fills, writes = [], []
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "users.parquet", Path(folder) / "messages.parquet"
        frame.write_parquet(source)
        for _ in range(ROUNDS):
            began = perf_counter()
            texts = columns.fill(data, "result", frame)
            fills.append(perf_counter() - began)
            assert texts.height == NUM_READERS and not texts["text"].null_count()  # noqa: S101, PT018
            began = perf_counter()
            audience.run(source, out, audience.Wanted(data, "result"))
            writes.append(perf_counter() - began)
    print(
        json.dumps({"fill_1m_s": round(statistics.median(fills), 3), "write_1m_s": round(statistics.median(writes), 3)})
    )


if __name__ == "__main__":
    main()
