"""`stepwell quantize apply RECIPE|FORMAT MODEL`: the file that a recipe makes, the same bytes every time, verified."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.quantize import needs

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.campaigns.quantize_apply import Made

REFUSED = 1
REFUSAL = "does NOT pass its verification: nothing was placed"
VERIFIED, WRITTEN = "verified: its manifest lies beside it", "written; vLLM or transformers will read it"
METHODS = ("gptq", "clip", "round", "scale")


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("apply", help="make the file of a recipe or a format", description=__doc__)
    parser.add_argument("recipe", metavar="RECIPE|FORMAT", help="a recipe.json, or a format for all matrices: Q4_K")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a Hugging Face folder")
    parser.add_argument("--task", required=True, help="whose calibration texts are looked at: a name, TOML or rows")
    parser.add_argument("--out", type=Path, required=True, help="FILE.gguf, or a folder for compressed-tensors")
    parser.add_argument("--method", choices=METHODS, default="gptq", help="with a format (default: gptq)")
    parser.add_argument("--seed", type=needs.seed, default=0, help="of the search that made the recipe (default: 0)")
    parser.add_argument("--threads", type=needs.count, default=1, help="the same number makes the same bytes")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no progress")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Apply, write, verify; 1 where the file does not pass. Raises StepwellError."""
    needs.check()
    logging.getLogger("gguf").setLevel(logging.WARNING)
    import torch  # noqa: PLC0415 - seconds, and only here

    from stepwell.campaigns import quantize_apply, quantize_task  # noqa: PLC0415 - lazy, like all commands

    torch.set_num_threads(given.threads)
    recipe, task = needs.recipe_of(given.recipe, given.method), quantize_task.load(given.task)
    with needs.bar("apply", quiet=given.json) as watch:
        made = quantize_apply.applied(given.model, recipe, task, given.out, seed=given.seed, watch=watch)
    print(msgspec.json.encode(made).decode()) if given.json else print("\n".join(lines(made)))
    return 0 if made.passed else REFUSED


def lines(made: Made) -> list[str]:
    """What was made, for people."""
    formats = ", ".join(f"{num} {name}" for name, num in made.formats.items())
    told = [
        f"{made.file}: {made.num_bytes:,} bytes, {made.bits:.3f} bits a weight ({formats})",
        f"sha256 {made.sha256}",
    ]
    if made.figures:
        kl, top1 = made.figures.get("kl_parent", 0.0), made.figures.get("top1_parent", 0.0)
        told.append(f"in the engine: KL to the parent {kl:.5f} nats a token, {top1:.2%} think the same token likeliest")
    told += [f"wrong: {each}" for each in made.complaints]
    return [*told, (VERIFIED if made.figures else WRITTEN) if made.passed else REFUSAL]
