"""`stepwell quantize elsewhere TOOL MODEL`: llm-compressor or AutoRound, in an environment of its own."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.quantize import needs
from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.quantize.elsewhere import Made

NEEDED = {"tokenizers": "train", "jinja2": "train", "gguf": "train", "numpy": "train", "polars": "synth"}
TOOLS = ("llm-compressor", "autoround")
NUM_ROWS = 512


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("elsewhere", help="quantize by llm-compressor or AutoRound", description=__doc__)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a Hugging Face folder")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--task", help="whose calibration texts are looked at: a name, TOML or rows")
    texts.add_argument("--texts", type=Path, help="rows with prompt and completion (.jsonl, .parquet)")
    parser.add_argument("--scheme", required=True, help="W4A16, W8A8, FP8, NVFP4 …; of AutoRound also Q2_K_S and so on")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter of the tool's environment")
    parser.add_argument("--out", type=Path, required=True, help="a new folder; of a GGUF preset FILE.gguf")
    parser.add_argument("--rows", type=needs.count, default=NUM_ROWS, help="so many texts at most")
    parser.add_argument("--iters", type=needs.count, default=200, help="steps that AutoRound learns for each block")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=needs.count, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Ask the tool, and say what it made. Raises StepwellError."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        extras = ",".join(sorted({NEEDED[name] for name in lacking}))
        raise ConfigError(f"needs {', '.join(lacking)}: pip install 'stepwell[{extras}]'")
    from stepwell.campaigns import quantize_task  # noqa: PLC0415 - lazy, like all commands
    from stepwell.distill.chat import words_of  # noqa: PLC0415
    from stepwell.quantize.elsewhere import Asked, quantized  # noqa: PLC0415

    rows = quantize_task.load(given.task).calibration if given.task else quantize_task.rows(given.texts)
    words = words_of(given.model)
    texts = tuple((*words.prompt_ids(row.prompt), *words.text_ids(row.completion)) for row in rows[: given.rows])
    made = quantized(
        Asked(
            given.tool,
            given.scheme,
            given.model,
            given.out,
            given.python,
            texts,
            iters=given.iters,
            device=given.device,
            threads=given.threads,
        )
    )
    print(msgspec.json.encode(made).decode() if given.json else "\n".join(lines(made, len(texts))))
    return 0


def lines(made: Made, num_texts: int) -> list[str]:
    """What was made, for people."""
    by = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    told = [
        f"{made.out}: {made.num_bytes:,} bytes, from {num_texts} texts, on {made.device}",
        f"  {by}",
        f"  {made.loaded_s:.1f} CPU s to load, {made.quantized_s:.1f} to quantize, {made.saved_s:.1f} to save",
    ]
    return [*told, f"  to run as it is, it needs {made.needs}"] if made.needs else told
