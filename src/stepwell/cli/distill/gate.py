"""`stepwell distill gate`: state a plan before the data; judge a student by it, and sign the verdict."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.cli.distill.needs import check_gate
from stepwell.errors import DistillError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.quality.compare import GatePlan

NOT_PROMOTED = 1


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("gate", help="may the student serve?", description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="?", help="a recipe whose [gate] is the plan; default: the defaults")
    parser.add_argument("--folder", type=Path, required=True, help="of the promotion: plan and verdict go there")
    parser.add_argument(
        "--pairs",
        type=Path,
        help="rows {id, slice, prompt, student, teacher, references} (.jsonl, .parquet or a folder), or "
        "{prompt, completion}: then the model answers; without: the plan is stated, and nothing judged",
    )
    parser.add_argument("--model", default="", help="the GGUF file that answered and is to serve, or a server's name")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer, where the model answers")
    parser.add_argument("--trained-on", type=Path, metavar="ROWS", help="what the student has learned from")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """State the plan, or judge; 1 where the student may not serve. Raises ConfigError, DistillError, StoreError."""
    check_gate()
    from stepwell.quality.gate import gate, seal  # noqa: PLC0415 - numpy, and signatures
    from stepwell.quality.verdict import lines, written  # noqa: PLC0415
    from stepwell.signing import signing_key  # noqa: PLC0415

    plan, key = plan_of(given.recipe), signing_key()
    check_gate(bleu=plan.bleu_margin > 0)
    if given.pairs is None:
        sealed = seal(given.folder, plan, key)
        told = f"{sealed.num_pairs:,} pairs for each of: {', '.join(dict.fromkeys(name for name, _ in plan.tests))}"
        print(msgspec.json.encode(sealed).decode() if given.json else f"stated {sealed.at}: judge by {told}")
        return 0
    from stepwell.quality.compare import pairs_of  # noqa: PLC0415
    from stepwell.store.tables import read  # noqa: PLC0415 - polars, for Parquet

    report = gate(
        given.folder,
        plan,
        pairs_of(answered(list(read(given.pairs)), given), file=str(given.pairs)),
        model=model_of(given.model),
        key=key,
        trained_on=frozenset(row["prompt"] for row in read(given.trained_on)) if given.trained_on else (),
    )
    print(written(report).decode() if given.json else "\n".join(lines(report)))
    return 0 if report.decision == "promote" else NOT_PROMOTED


def answered(rows: list[dict[str, Any]], given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows with the student's answers; where they have none, the model answers. Raises DistillError."""
    asking = [row for row in rows if "student" not in row and isinstance(row.get("prompt"), str)]
    if not asking:
        return rows
    if not given.model.endswith(".gguf"):
        raise DistillError("rows without the student's answer: name the file that is to answer, --model FILE.gguf")
    from stepwell.campaigns.served import served  # noqa: PLC0415 - llama.cpp

    told = served(
        Path(given.model), [row["prompt"] for row in asking], max_tokens=given.max_tokens, watch=lambda _: None
    )
    for row, text in zip(asking, told.texts, strict=True):
        row |= {"student": text, "teacher": row.get("teacher", row.get("completion"))}
    return rows


def plan_of(recipe: Path | None) -> GatePlan:
    """The plan of a recipe. Raises ConfigError where its [gate] is wrong, DistillError where it cannot be read."""
    from stepwell.quality.compare import GatePlan, Recipe  # noqa: PLC0415 - numpy
    from stepwell.toml import typed  # noqa: PLC0415

    if recipe is None:
        return GatePlan()
    try:
        text = recipe.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DistillError(f"cannot be read: {error}", file=str(recipe)) from error
    found: Recipe = typed(text, Recipe, file=str(recipe))
    return found.gate


def model_of(named: str) -> str:
    """What the verdict is about: a file by its hash, anything else by its name. Raises DistillError."""
    from stepwell.quality.files import sha256_of  # noqa: PLC0415

    is_file = named.endswith(".gguf") or Path(named).is_file()
    return sha256_of(Path(named)) if named and is_file else named
