"""`stepwell quantize compare A B …`: files of one parent side by side in the real engine, with intervals."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.quantize import needs
from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from stepwell.campaigns.quantize_compare import Compared
    from stepwell.quantize.frontier import Difference

NUM_ROWS, LEAST_ROWS = 128, 2
MEGA, THOUSAND = 1e6, 1e3
Z = 1.96


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("compare", help="files side by side in the engine", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="GGUF files")
    parser.add_argument("--model", type=Path, required=True, help="their parent: a Hugging Face folder")
    parser.add_argument("--task", required=True, help="NAME of recipes/tasks, a TOML file or a file of rows")
    parser.add_argument("--split", choices=("search", "gate"), default="search", help="whose rows (default: search)")
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="so many of them at most (default: 128)")
    parser.add_argument("--seed", type=needs.seed, default=0, help="by which rows are drawn")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no progress")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Compare. Raises StepwellError."""
    if given.rows < LEAST_ROWS:
        raise ConfigError(f"is {given.rows}: at least {LEAST_ROWS}, so that there is an interval", field="rows")
    needs.check()
    logging.getLogger("gguf").setLevel(logging.WARNING)
    import torch  # noqa: PLC0415 - seconds, and only here

    from stepwell.campaigns import quantize_compare, quantize_task  # noqa: PLC0415 - lazy, like all commands
    from stepwell.campaigns.quantize_model import some  # noqa: PLC0415

    torch.set_num_threads(1)
    task = quantize_task.load(given.task)
    rows = some(getattr(task, given.split), given.rows, given.seed)
    with needs.bar("compare", quiet=given.json) as watch:
        found = quantize_compare.compared(given.files, given.model, (task, rows), watch)
    if given.json:
        told = {"model": given.model.name, "task": task.name, "split": given.split, "rows": len(rows), "files": found}
        print(msgspec.json.encode(told).decode())
    else:
        show(found, f"{given.model.resolve().name} on {len(rows)} {given.split} rows of {task.name}")
    return 0


def show(found: tuple[Compared, ...], title: str) -> None:
    """A line a file."""
    from rich.console import Console  # noqa: PLC0415 - lazy, like all commands
    from rich.table import Table  # noqa: PLC0415

    metrics = [each.metric for each in found[0].scores]
    table = Table(title=title, caption="intervals: 95 %; scores less those of the parent's 16-bit file")
    for name in ("file", "MB", "KL x 1000", "to the first", "top-1 %", *metrics, "tokens/CPU s"):
        table.add_column(name, justify="left" if name == "file" else "right")
    for each in found:
        table.add_row(*cells(each))
    Console().print(table)


def cells(each: Compared) -> tuple[str, ...]:
    """A file's figures."""
    kl = f"{THOUSAND * each.kl:.3f} ± {THOUSAND * Z * each.kl_error:.3f}"
    pace = each.tokens_per_s
    return (
        Path(each.file).name,
        f"{each.num_bytes / MEGA:.3f}",
        kl,
        f"{each.kl_ratio.value:.2f} ({each.kl_ratio.low:.2f} to {each.kl_ratio.high:.2f})",
        f"{100 * each.top1:.2f}",
        *map(score, each.scores),
        f"{pace.value:.0f} ({pace.low:.0f} to {pace.high:.0f})",
    )


def score(each: Difference) -> str:
    """A score, and how far it is from the parent's."""
    scale, unit = (1.0, "") if each.metric == "bleu" else (100.0, " %")
    return f"{scale * each.score:.2f}{unit} ({scale * each.low:+.2f} to {scale * each.high:+.2f})"
