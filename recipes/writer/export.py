"""Write a run as it ships: `python -m recipes.writer.export RUN models/house-writer`.

A Hugging Face folder with bfloat16 weights, and one GGUF file for the embedded engine: in Q8_0, until
`stepwell quantize search` has found a smaller one that keeps the quality.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from stepwell.distill import student
from stepwell.quantize.export import to_gguf

NAME = "house-writer"


def export(run: Path, out: Path) -> None:
    """Write both beside what the folder holds already (its README)."""
    learned = run / "student"
    provenance = json.loads((learned / "provenance.json").read_text(encoding="utf-8"))
    new = student.save(student.load(learned), out.with_name(f".{out.name}.export"), provenance, dtype=torch.bfloat16)
    to_gguf(new, new / f"{NAME}.gguf", name=NAME)
    shutil.copytree(new, out, dirs_exist_ok=True)
    shutil.rmtree(new)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    export(given.run, given.out)
    print(f"{sum(file.stat().st_size for file in given.out.iterdir()) / 1e6:.1f} MB in {given.out}")


if __name__ == "__main__":
    main()
