"""`stepwell quantize sensitivity MODEL`: what each matrix loses in each format, and the best mixture for a budget."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.cli.quantize import needs
from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from rich.table import Table as RichTable
    from rich.text import Text

    from stepwell.campaigns.quantize_mixed import Budget, Mixed, Sensitivity
    from stepwell.quantize.sensitivity import Entry, Table

METHODS = ("gptq", "clip", "round")
"""Those that see one matrix at a time; scaling moves factors between them."""
NUM_ROWS, LEAST_ROWS = 48, 2
SMALL = 1e-5


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("sensitivity", help="what each matrix loses in each format", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a Hugging Face folder")
    parser.add_argument("--task", required=True, help="NAME of recipes/tasks, a TOML file or a file of rows")
    parser.add_argument("--formats", default="", metavar="A,B,…", help="default: those of llama.cpp that fit")
    parser.add_argument("--method", choices=METHODS, default="gptq", help="how codes are found (default: gptq)")
    parser.add_argument("--base", metavar="RECIPE|FORMAT", help="what all others have; default: what the model has")
    parser.add_argument("--predict", action="store_true", help="foresee it from the curvature: quicker, no search rows")
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="of the search split that judge (default: 48)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--bits", type=float, help="budget: bits a weight, scales included, over all matrices")
    budget.add_argument("--bytes", type=int, help="budget: bytes of all matrices")
    budget.add_argument("--ms", type=float, help="budget: milliseconds a token of all products, as measured here")
    parser.add_argument("--repair", type=float, default=0.0, metavar="SECONDS", help="improve the mixture by joint KL")
    parser.add_argument("--recipe", type=Path, help="write the mixture: a recipe.json for `quantize apply`")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    parser.add_argument("--picture", type=Path, help="write the table as an SVG picture")
    parser.add_argument("--seed", type=needs.seed, default=0)
    parser.add_argument("--threads", type=needs.count, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no progress")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Measure, and allocate where there is a budget. Raises StepwellError."""
    check(given)
    needs.check()
    import torch  # noqa: PLC0415 - seconds, and only here

    from stepwell.campaigns import quantize_mixed, quantize_task  # noqa: PLC0415 - lazy, like all commands

    torch.set_num_threads(given.threads)
    task = quantize_task.load(given.task)
    subject = quantize_mixed.subject(given.model, task, num_rows=given.rows, seed=given.seed)
    base = needs.recipe_of(given.base, given.method) if given.base else None
    formats = tuple(filter(None, given.formats.split(",")))
    with needs.bar("sensitivity", quiet=given.json) as watch:
        if given.predict:
            table = quantize_mixed.foreseen(subject, formats, given.method, watch)
        else:
            table = quantize_mixed.table(subject, formats, given.method, base, watch)
    wanted, mixed = budget(given), None
    if wanted is not None:
        mixed = quantize_mixed.mixed(subject, table, wanted, repair_s=given.repair)
    found = quantize_mixed.Sensitivity(given.model.resolve().name, task.name, table, mixed)
    write(given, found)
    print(msgspec.json.encode(found).decode()) if given.json else show(found)
    return 0


def check(given: argparse.Namespace) -> None:
    """Raise ConfigError for options that mean nothing together, or nothing at all."""
    if given.rows < LEAST_ROWS:
        raise ConfigError(f"is {given.rows}: at least {LEAST_ROWS}, so that there is an interval", field="rows")
    chosen = given.bits or given.bytes or given.ms
    if given.predict and given.base:
        raise ConfigError("foresees one matrix at a time: leave out --base", field="predict")
    for name in ("recipe", "repair"):
        if getattr(given, name) and not chosen:
            raise ConfigError("needs a budget: --bits, --bytes or --ms", field=name)


def budget(given: argparse.Namespace) -> Budget | None:
    """The budget that was named."""
    from stepwell.campaigns.quantize_mixed import Budget  # noqa: PLC0415 - lazy, like all commands

    named = (Budget("bits", given.bits), Budget("bytes", given.bytes), Budget("ms", given.ms))
    return next((each for each in named if each.value is not None), None)


def write(given: argparse.Namespace, found: Sensitivity) -> None:
    """Whatever files were asked for."""
    from stepwell.quality.files import lay  # noqa: PLC0415 - lazy, like all commands
    from stepwell.quantize import recipe, sensitivity  # noqa: PLC0415
    from stepwell.quantize.heat import heat  # noqa: PLC0415

    for path in filter(None, (given.out, given.recipe, given.picture)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if given.out:
        sensitivity.write(given.out, found.table)
    if given.recipe and found.mixed:
        recipe.write(given.recipe, found.mixed.recipe)
    if given.picture:
        picked = found.mixed.recipe if found.mixed else None
        lay(given.picture, heat(found.table, f"{found.model} on {found.task}", picked).encode())


def show(found: Sensitivity) -> None:
    """The table as a map of heat, and the mixture."""
    from rich.console import Console  # noqa: PLC0415 - lazy, like all commands

    console = Console()
    console.print(drawn(found.table, found.mixed))
    if found.mixed:
        for line in told(found.mixed):
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def drawn(table: Table, mixed: Mixed | None) -> RichTable:
    """A line a matrix, a column a format, coloured by how much is lost; a dot: taken."""
    from rich.table import Table as RichTable  # noqa: PLC0415 - lazy, like all commands

    from stepwell.quantize.heat import ends  # noqa: PLC0415

    others = "quantized others" if table.base else "the parent's others"
    how = "foreseen from" if table.predicted else "measured on"
    title = f"KL x 1000 with {others}, by {table.method}, {how} {table.num_tokens:,} tokens"
    shown = RichTable(title=title)
    for name in ("matrix", *table.formats):
        shown.add_column(name, justify="left" if name == "matrix" else "right")
    found, between = {(entry.name, entry.format): entry for entry in table.entries}, ends(table)
    for name in table.names:
        taken = mixed.recipe.rule(name).format if mixed else ""
        cells = [cell(found.get((name, format_)), taken, between) for format_ in table.formats]
        shown.add_row(name.removesuffix(".weight").removeprefix("layers."), *cells)
    return shown


def cell(entry: Entry | None, taken: str, between: tuple[float, float]) -> Text:
    """One format of one matrix."""
    from rich.text import Text  # noqa: PLC0415 - lazy, like all commands

    from stepwell.quantize.heat import LIGHT, colour, heated  # noqa: PLC0415

    if entry is None:
        return Text()
    share, is_taken = heated(entry.kl, between), entry.format == taken
    style = f"{'bold ' if is_taken else ''}{'#ffffff' if share > LIGHT else '#23201b'} on {colour(share)}"
    return Text(f"{'• ' if is_taken else ''}{short(entry.kl)}", style=style)


def short(kl: float) -> str:
    """Thousandths of a nat, in five letters: so that a terminal has room for all formats."""
    from stepwell.quantize.heat import thousandths  # noqa: PLC0415 - lazy, like all commands

    return thousandths(kl) if kl >= SMALL else "<.01"


def told(mixed: Mixed) -> list[str]:
    """The mixture in lines."""
    time = "" if mixed.ms is None else f", {mixed.ms:.3f} ms of products a token"
    lines = [f"{mixed.bits:.3f} bits a weight, {mixed.num_bytes:,} bytes of matrices{time}"]
    single = "" if mixed.kl_sum is None else f"; the single ones add up to {mixed.kl_sum:.5f}"
    lines.append(f"joint KL {mixed.kl:.5f} ± {mixed.error:.5f}{single}")
    if mixed.kl < mixed.kl_before:
        lines.append(f"repaired: it was {mixed.kl_before:.5f}")
    return lines
