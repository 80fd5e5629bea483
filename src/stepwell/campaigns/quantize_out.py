"""What a search leaves in its folder: the file and its recipe, the picture, all points, the card."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from stepwell.campaigns.quantize_files import Files
from stepwell.campaigns.quantize_job import Job
from stepwell.quality.files import lay
from stepwell.quantize.card import PICTURE, card
from stepwell.quantize.frontier import Point
from stepwell.quantize.manifest import shelve
from stepwell.quantize.picture import picture
from stepwell.quantize.recipe import Recipe
from stepwell.quantize.search import Found, Plan

FOUND, RECIPE, CARD = "found.json", "recipe.json", "README.md"


def written(job: Job, plan: Plan, found: Found, files: Files) -> None:
    """Write everything; found.json, which says that it is all there, last."""
    name = f"{job.model.name}.gguf"
    if found.status == "found" and found.winner is not None:
        shelve(files.made(found.winner), job.out, name)
        lay(job.out / RECIPE, pretty(recipe_of(found.winner)))
    won = found.winner.name if found.winner else ""
    lay(job.out / PICTURE, picture(found.points, found.parent, won, title(plan, found)).encode())
    lay(job.out / CARD, card(plan, found, name).encode())
    lay(job.out / FOUND, pretty(found))


def recipe_of(point: Point) -> Recipe:
    """A recipe as it is written down: that weights were trained for it, says its method."""
    if not point.trained:
        return point.recipe
    default, *rules = (replace(each, method="qat") for each in (point.recipe.default, *point.recipe.rules))
    return Recipe(default, tuple(rules))


def pretty(value: Found | Recipe) -> bytes:
    """JSON for people, too."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def title(plan: Plan, found: Found) -> str:
    """The picture in a sentence."""
    if found.winner is None:
        return f"{plan.model} on {plan.task}: no recipe qualifies within {plan.margins}"
    was, now = found.parent.num_bytes / 1e6, found.winner.num_bytes / 1e6
    doubt = "" if found.status == "found" else " (not gated yet)"
    return f"{plan.model} on {plan.task}: {was:.2f} → {now:.2f} MB within {plan.margins}{doubt}"
