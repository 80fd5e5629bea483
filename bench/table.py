"""How a benchmark of several parts is run: its options, its table, and its last line."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from bench import cpu

Row = tuple[str, str, float, float, bool]
"""Key, what it is, must, aim, and whether less is better."""


def run(about: str | None, parts: Sequence[ModuleType], rows: Sequence[Row], *, quick: bool = False) -> None:
    """Measure part by part, then print the table and the line; keys outside of `rows` are in the line only.

    With `quick` the parts can do less, where that is asked for; the line then says so.
    """
    parser = argparse.ArgumentParser(description=about)
    names = [part.__name__.rpartition(".")[2] for part in parts]
    parser.add_argument("--only", choices=names, nargs="+", default=names, help="these parts; the rest stays null")
    if quick:
        parser.add_argument("--quick", action="store_true", help="less of everything: to see that it runs")
    given = parser.parse_args()
    wanted, options = given.only, {"quick": given.quick} if quick else {}
    print(f"{cpu.machine()}, Python {platform.python_version()}, {platform.system()} {platform.release()}", flush=True)
    figures: dict[str, Any] = {key: None for key, *_ in rows}
    for name, part in zip(names, parts, strict=True):
        if name in wanted:
            print(f"{name} …", flush=True)
            figures.update(part.measure(**options))
    for key, what, must, aim, less in rows:
        print(line(what, figures[key], must, aim, less=less))
    print(json.dumps({**figures, **({"quick": True} if options.get("quick") else {})}))


def line(what: str, figure: float | None, must: float, aim: float, *, less: bool) -> str:
    """One row of the table."""
    sign = "≤" if less else "≥"
    bounds = f"must {sign} {must:g}, aim {sign} {aim:g}"
    if figure is None:
        return f"{what:<46} {'not measured':>12}   {bounds}"
    held = [figure <= bound if less else figure >= bound for bound in (must, aim)]
    verdict = "reaches the aim" if held[1] else "holds the must" if held[0] else "MISSES THE MUST"
    return f"{what:<46} {figure:>12,.4g}   {bounds}: {verdict}"
