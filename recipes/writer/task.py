"""Write E2E as the task of the house models: `python -m recipes.writer.task runs/tasks/house-writer`.

Calibration rows are a sample of what they learned, search rows E2E's dev set, gate rows its test set.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path

from recipes.writer import data
from stepwell.campaigns.quantize_task import Row, leaked
from stepwell.store import tables

NUM_CALIBRATION = 8192
SEED = 0


def write(out: Path) -> dict[str, int]:
    """The three files; how many rows each has."""
    out.mkdir(parents=True, exist_ok=True)
    held = {"search": judged(data.read("dev")), "gate": judged(data.read("test"))}
    parts = {"calibration": calibration([row for part in held.values() for row in part]), **held}
    for name, rows in parts.items():
        tables.write(out / f"{name}.jsonl", map(as_record, rows))
    return {name: len(rows) for name, rows in parts.items()}


def judged(texts: Mapping[str, list[str]]) -> list[Row]:
    """Prompts with all their human texts."""
    return [Row(mr, refs[0], tuple(refs)) for mr, refs in texts.items()]


def calibration(held: list[Row]) -> list[Row]:
    """A sample of the human texts that say all their facts, none about what is held out."""
    rows = [Row(pair.mr, pair.text) for pair in data.clean(data.read("train"))]
    bad = leaked(rows, held)
    kept = [row for at, row in enumerate(rows) if at not in bad]
    return random.Random(SEED).sample(kept, NUM_CALIBRATION)


def as_record(row: Row) -> dict[str, object]:
    """A row as it is written."""
    texts = {"references": list(row.references)} if row.references else {}
    return {"prompt": row.prompt, "completion": row.completion, **texts}


def main() -> None:
    """Write them and say how many rows there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    for name, num in write(parser.parse_args().out).items():
        print(f"{name}: {num:,} rows")


if __name__ == "__main__":
    main()
