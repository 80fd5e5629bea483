"""Inputs on which all runtimes must agree: bundles of twelve locales, hostile and plain values, every sink."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from stepwell.templates.compile import bundle
from stepwell.templates.schema import Schema, Slot

LOCALES = ("en", "de", "fr", "pl", "ru", "ar", "ja", "he", "cs", "cy", "ga", "sl")
SINKS = ("plain", "html", "attribute", "json", "url", "sms")
SLOTS = (
    Slot(name="name", kind="text", max_chars=40, default="friend"),
    Slot(name="count", kind="number", low=0, high=10**9, decimals=2),
    Slot(name="place", kind="number", low=1, high=200),
    Slot(name="kind", kind="choice", values=("bar", "pub", "café ö")),
    Slot(name="price", kind="money", currency="EUR"),
    Slot(name="share", kind="number", low=0, high=1, decimals=4),
    Slot(name="day", kind="date"),
)
TEMPLATES = {
    "plain": ["Hello {$name}: \\{100%\\} – “{$kind}”…", "{$name} & {$kind} = <{$count}>"],
    "count": [
        ".input {$count :number}\n.match $count\n0 {{none}}\none {{one {$count}}}\ntwo {{two {$count}}}\n"
        "few {{few {$count}}}\nmany {{many {$count}}}\n* {{other {$count}}}",
        ".input {$count :integer}\n.match $count\n1 {{exactly one}}\none {{one {$count}}}\n* {{other {$count}}}",
    ],
    "place": [
        ".input {$place :number select=ordinal}\n.match $place\n1 {{first}}\none {{{$place}-one}}\n"
        "two {{{$place}-two}}\nfew {{{$place}-few}}\nmany {{{$place}-many}}\n* {{{$place}-other}}"
    ],
    "mixed": [
        ".input {$count :number minimumFractionDigits=1}\n.input {$kind :string}\n.input {$place :integer select=exact}\n"
        ".match $kind $count $place\nbar one 3 {{bar one third {$name}}}\npub * 3 {{pub third {$count}}}\n"
        "* one * {{one {$kind} {$count}}}\n* few 7 {{few seven}}\n* * * {{{$count} {$kind} {$place}}}"
    ],
    "money": ["{$price} {$price :currency currency=USD} {$price :currency currency=JPY currencyDisplay=code}"],
    "share": ["{$share :percent} {$share :percent maximumFractionDigits=1} {$share} {$count :number}"],
    "date": [
        "{$day} {$day :date length=long} {$day :date fields=month-day-weekday} {$day :time}",
        "{$day :time precision=second} {$day :date length=short} {$day :date fields=weekday length=long}",
    ],
}
WEIGHTS = {"plain": (3, 1), "date": (0, 1)}
NUMBERS = (
    *(
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        10,
        11,
        12,
        13,
        19,
        20,
        21,
        22,
        23,
        25,
        100,
        101,
        111,
        112,
        999,
        1000,
        1001,
        9999,
        10000,
    ),
    *(
        123456,
        1234567,
        999999999999999,
        10**15,
        -1,
        -2.5,
        0.5,
        1.5,
        2.5,
        1.005,
        0.125,
        1e-9,
        -0.0004,
        99.995,
        1.0,
        2.50,
    ),
    *("3", "1.10", "-7", "007", "1e3", "", " 4", None, True, [], {}),
)
NAMES = (
    *("Ann", "  Zoë ", "O'Hara & <Söhne>", "a\r\nb", "x\u202ey\u2066z", "\u200f", "   ", "", None, True, 5, 7.0, 7.5),
    *(
        "𝒳" * 40,
        "𝒳" * 41,
        "é" * 41,
        '"\\`=',
        "שלום",
        "日本",
        "\ufeff\x00\x7f\x9f",
        "a\u2028b",
        "100%",
        "{0}",
        "–—“”‘’…\u00a0",
    ),
)
DAYS = (
    *("2026-11-24", "2024-02-29", "2025-02-29", "0001-01-01", "0000-01-01", "9999-12-31T23:59:59", "2026-01-05T00:00"),
    *("2026-07-04T12:30", "2026-07-04T24:00", "2026-13-01", "24.11.2026", "2026-11-24T9:00", "", None, 20261124),
)


def schema(missing: str = "skip") -> Schema:
    """The schema of every template here."""
    return Schema(name="cup/ö", slots=SLOTS, locales=LOCALES, channel="page", missing=missing)  # type: ignore[arg-type]


def bundles() -> list[tuple[str, bytes]]:
    """One bundle a locale, its policy in turn."""
    policies = ("skip", "default", "variant")
    made = []
    for place, locale in enumerate(LOCALES):
        made.append((locale, bundle(schema(policies[place % 3]), locale, TEMPLATES, weights=WEIGHTS)))
    return made


def cases(num: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """`{template, values, reader, sink}`, the same ones for the same seed."""
    random_ = random.Random(seed)
    names = sorted(TEMPLATES)
    for at in range(num):
        values: dict[str, Any] = {
            "name": random_.choice(NAMES),
            "count": random_.choice(NUMBERS),
            "place": random_.choice(NUMBERS[:28]) if at % 3 else random_.choice(NUMBERS),
            "kind": random_.choice(("bar", "pub", "café ö", " bar", "inn", 3, None)),
            "price": random_.choice(NUMBERS),
            "share": random_.choice((0, 0.005, 0.015, 0.12345, 1, -0.254, 0.999, 12.5, "0.5", None)),
            "day": random_.choice(DAYS),
        }
        for slot in [slot for slot in values if random_.random() < 0.03]:
            del values[slot]
        yield {
            "template": names[at % len(names)],
            "values": values,
            "reader": random_.choice((f"r{at}", f"läser {at}", "", "𝒳")),
            "sink": SINKS[random_.randrange(len(SINKS))] if at % 2 else "plain",
        }
