"""Bytes on the wire: 24 templates in brotli, and an update of 5 % of them with the old bundle as dictionary."""

from __future__ import annotations

import brotli

from bench.templates.vectors import LOCALES
from stepwell.templates.compile import bundle
from stepwell.templates.packed import BROTLI_QUALITY, delta
from stepwell.templates.schema import Schema, Slot

SCHEMA = Schema(
    name="guide",
    channel="page",
    locales=LOCALES,
    slots=(
        Slot(name="name", kind="text"),
        Slot(name="venue", kind="entity"),
        Slot(name="points", kind="number", low=0, high=100_000),
        Slot(name="minutes", kind="number", low=1, high=90),
        Slot(name="rank", kind="number", low=1, high=200),
        Slot(name="price", kind="money", currency="EUR", low=0, high=1000),
    ),
)
COUNTED = ".input {{$points :integer}}\n.match $points\none {{{{{one}}}}}\n* {{{{{other}}}}}"
TEXTS = {
    "points": (
        ("{$name}, you have {$points} point.", "{$name}, you have {$points} points."),
        ("{$points} point is waiting for you, {$name}.", "{$points} points are waiting for you, {$name}."),
        ("You have collected {$points} point, {$name}.", "You have collected {$points} points, {$name}."),
        ("{$name}, {$points} point to spend.", "{$name}, {$points} points to spend."),
    ),
    "venue": (
        "{$venue} has a table for you, {$name}.",
        "{$name}, there is a table for you at {$venue}.",
        "How about {$venue} tonight, {$name}?",
        "{$name}, tonight would be a good night for {$venue}.",
        "{$venue} is waiting for you, {$name}.",
        "{$name}, you liked {$venue}: come again tonight.",
        "A table at {$venue} tonight, {$name}?",
        "{$name}, {$venue} is open tonight.",
    ),
    "way": (
        "{$venue} is {$minutes} min from you, {$name}.",
        "{$name}, it is {$minutes} min to {$venue}.",
        "{$minutes} min, {$name}, and you are at {$venue}.",
        "{$name}, {$venue} is near: {$minutes} min on foot.",
        "On foot {$venue} is {$minutes} min from you, {$name}.",
        "{$name}, come to {$venue}: {$minutes} min on foot.",
    ),
    "offer": (
        "{$venue} has a menu for {$price}, {$name}.",
        "{$name}, the menu at {$venue} is {$price} tonight.",
        "Tonight at {$venue}: a menu for {$price}, {$name}.",
        "{$name}, a table and a menu at {$venue} for {$price}.",
        "A menu for {$price} is waiting for you at {$venue}, {$name}.",
        "{$name}, you have a table at {$venue}; the menu is {$price}.",
    ),
}
"""24 texts of a city guide; every locale carries its own numbers, signs and plural rules around the same words."""
CHANGED = ("{$name}, you liked {$venue}: come again tonight.", "{$name}, you liked {$venue}. They miss you.")
"""One of 24 texts is about 5 %."""


def measure() -> dict[str, int]:
    """Bytes of `en`; the worst locale is printed."""
    sizes = {locale: len(brotli.compress(made(locale), quality=BROTLI_QUALITY)) for locale in LOCALES}
    updates = {locale: len(delta(made(locale, CHANGED), made(locale))) for locale in LOCALES}
    for what, each in (("brotli", sizes), ("update", updates)):
        worst = max(each, key=lambda locale: each[locale])
        print(f"  {what}: en {each['en']} bytes; worst {worst} {each[worst]} bytes")
    return {"bundle_br_bytes": sizes["en"], "update_bytes": updates["en"]}


def made(locale: str, change: tuple[str, str] = ("", "")) -> bytes:
    """The bundle, with one text changed."""
    counted = [COUNTED.format(one=one, other=other) for one, other in TEXTS["points"]]
    templates = {
        name: [change[1] if text == change[0] else text for text in texts]
        for name, texts in TEXTS.items()
        if name != "points"
    }  # type: ignore[comparison-overlap]
    return bundle(SCHEMA, locale, templates | {"points": counted})  # type: ignore[dict-item]
