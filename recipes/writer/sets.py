"""Write E2E's dev and test sets as rows that a recipe can name: `python -m recipes.writer.sets runs/e2e`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from recipes.writer import data


def main() -> None:
    """Write dev.jsonl and test.jsonl, a prompt and its human texts a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for part in ("dev", "test"):
        lines = (json.dumps({"mr": mr, "refs": refs}, ensure_ascii=False) for mr, refs in data.read(part).items())
        (out / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
