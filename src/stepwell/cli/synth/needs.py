"""What the commands on synthetic data share: their arguments, what must be installed, and who may be asked."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from stepwell.quality.judge import Embed
    from stepwell.synth.generator import Paid, Watch
    from stepwell.synth.recipe import Recipe
    from stepwell.synth.sift import Tools

MODULES = ("numpy", "polars", "rich")


def check_extra() -> None:
    """Raise ConfigError where the extra `synth` is not installed."""
    lacking = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"needs {', '.join(lacking)}: pip install 'stepwell[synth]'")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The recipe, and where its work is kept."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file with a section [synth]")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where rows and answers are kept (default: runs/NAME)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def add_budget(parser: argparse.ArgumentParser) -> None:
    """What may be paid, to whom, and where the rows go beside their shards."""
    parser.add_argument("--i-may", action="store_true", help="you may train on its generator's answers")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write the rows that stay as JSON Lines, too")
    parser.add_argument(
        "--budget-usd", type=float, metavar="USD", help="what the generator may cost, all runs together"
    )
    parser.add_argument(
        "--max-calls", type=int, metavar="N", help="how often the generator may be asked, all runs together"
    )


def root_of(given: argparse.Namespace) -> Path:
    """Where a recipe's work is kept."""
    root: Path | None = given.root
    return root or Path("runs") / Path(given.recipe).stem


def tools_of(given: argparse.Namespace, recipe: Recipe, watch: Watch) -> Tools:
    """The generator within its budget, and the embedder, each opened when it is first needed."""
    from stepwell.engines.answers import Answers, Budget  # noqa: PLC0415 - lazy, like all commands
    from stepwell.synth.generator import opened  # noqa: PLC0415
    from stepwell.synth.run import ANSWERS  # noqa: PLC0415
    from stepwell.synth.sift import Tools  # noqa: PLC0415

    answers = Answers(root_of(given) / ANSWERS)
    budget = Budget(getattr(given, "budget_usd", None), getattr(given, "max_calls", None))

    def embed() -> Embed:
        from stepwell.engines.embed import MiniLm  # noqa: PLC0415 - needs the extra `cache`

        return MiniLm(None, root_of(given) / "embedder").embed

    def open_() -> Paid:
        return opened(recipe, answers, budget, watch, i_may=given.i_may)

    embeds = all(importlib.util.find_spec(name) for name in ("onnxruntime", "tokenizers"))
    return Tools(open_ if recipe.synth.generator else None, embed if embeds else None)
