"""Synthetic data as a campaign: make the rows, sift them, write their card; stages by content, nothing paid twice."""

from __future__ import annotations

from pathlib import Path

from stepwell.campaigns.run import Folders, Stage
from stepwell.synth import card, run
from stepwell.synth.recipe import Recipe
from stepwell.synth.sift import Tools

MAKE, SIFT = "make", "sift"


def stages(recipe: Recipe, tools: Tools, *, name: str, text: str) -> list[Stage]:
    """The stages: `make` leaves `raw/`, `sift` leaves `rows/`, `rejected/`, `funnel.json` and the card."""

    def make(_: Folders, out: Path) -> None:
        run.made(recipe, out, tools.open)

    def sift(before: Folders, out: Path) -> None:
        done = run.sifted(recipe, before[MAKE] / run.RAW, out, tools)
        card.write(done, out, name=name, recipe=text)

    return [Stage(MAKE, run.making(recipe), make), Stage(SIFT, run.sifting(recipe) + text.encode(), sift)]
