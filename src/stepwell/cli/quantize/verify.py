"""`stepwell quantize verify`: is this file the model it is said to be? Its manifest says so, or what is wrong."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.quantize import needs
from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.verified import Manifest

REFUSED = 1
NUM_ROWS = 64
WHOLE = 2


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("verify", help="load a file in the engine and compare it", description=__doc__)
    parser.add_argument("file", type=Path, help="a GGUF file; FILE.manifest.json is written beside it")
    parser.add_argument("--model", type=Path, required=True, help="the Hugging Face folder that it was made from")
    parser.add_argument("--task", metavar="NAME", help="compare on its search rows; default: on a few sentences")
    parser.add_argument("--rows", type=needs.count, default=NUM_ROWS, help="so many rows of the task at most")
    parser.add_argument("--kl-parent", type=float, default=float("inf"), help="nats a token from the model, at most")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Verify; 1 where the file does not pass. Raises ConfigError, DistillError, StoreError."""
    needs.check()
    from stepwell.campaigns import quantize_task  # noqa: PLC0415 - polars
    from stepwell.distill import student  # noqa: PLC0415 - torch
    from stepwell.quantize.findings import Limits  # noqa: PLC0415
    from stepwell.quantize.verify import CORPUS, verified  # noqa: PLC0415

    if not given.file.is_file():
        raise ConfigError("there is no such file; name a GGUF file", file=str(given.file))
    parent = student.load(given.model)
    if given.task:
        rows = [(row.prompt, row.completion) for row in quantize_task.load(given.task).search[: given.rows]]
    else:
        rows = [(text[: len(text) // WHOLE], text[len(text) // WHOLE :]) for text in CORPUS]
    made = verified(
        given.file,
        given.model,
        parent,
        [(parent.prompt_ids(prompt), parent.text_ids(completion)) for prompt, completion in rows],
        corpus=[text for row in rows for text in row],
        limits=Limits(kl_parent=given.kl_parent),
    )
    print(msgspec.json.encode(made).decode() if given.json else "\n".join(lines(made)))
    return 0 if made.passed else REFUSED


def lines(made: Manifest) -> list[str]:
    """What was found, for people."""
    kinds = ", ".join(f"{num} {kind}" for kind, num in sorted(made.formats.items()))
    told = [f"{made.file}: {made.num_bytes:,} bytes, {kinds or 'not read'}; {made.engine or 'no engine'}"]
    for name, value in made.figures.items():
        limit = f"  limit {made.limits[name]:.4g}" if name in made.limits else ""
        told.append(f"  {name.replace('_', ' '):<26} {value:>10.4g}{limit}")
    told += [f"  wrong: {complaint}" for complaint in made.complaints]
    verdict = "passes" if made.passed else "does NOT pass"
    return [*told, f"{verdict}, on {made.num_tokens:,} tokens of {made.num_texts} texts"]
