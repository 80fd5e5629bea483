"""Vectors: inputs on which the three runtimes must agree to the byte, and with foreign ones where CLDR is the same.

Twelve locales, hostile and plain values, every sink. The oracles are npm `messageformat` (the official MessageFormat 2
runtime, on the platform's ICU) and ICU's MessageFormat 1 by icu4py on twins of the messages.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from stepwell.templates.columns import fill as fill_columns
from stepwell.templates.compile import bundle
from stepwell.templates.fill import Filler, load
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
        ".input {$count :number minimumFractionDigits=1}\n.input {$kind :string}\n"
        ".input {$place :integer select=exact}\n"
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


NUM_CASES = 1000
"""Cases a locale."""
Result = dict[str, Any]
TWINS = {
    "count": "{count, plural, =0 {none} one {one {count, number}} two {two {count, number}} few {few {count, number}} "
    "many {many {count, number}} other {other {count, number}}}",
    "place": "{place, selectordinal, =1 {first} one {{place, number}-one} two {{place, number}-two} "
    "few {{place, number}-few} many {{place, number}-many} other {{place, number}-other}}",
}
"""MessageFormat 1 twins of the first variants."""
TWIN_NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    11,
    12,
    19,
    20,
    21,
    22,
    23,
    42,
    80,
    100,
    101,
    111,
    1000,
    1234567,
    0.5,
    1.5,
    2.25,
)


def measure() -> dict[str, int | None]:
    """How many vectors come out the same in all three runtimes; differences are printed and make it fail."""
    if shutil.which("node") is None:
        print("  node is not installed: the JavaScript runtime was not compared")
        return {"vectors": None}
    ours, theirs, columns = (results(NUM_CASES) for results in (python_results, javascript_results, columnar_results))
    differ = [
        each for each in zip(ours, theirs, columns, strict=True) if each[0] != each[1] or each[2] not in (None, each[0])
    ]
    for each in differ[:20]:
        print("  differ:", each)
    filled = sum("text" in each for each in ours)
    print(f"  {len(ours):,} vectors, {filled:,} of them texts; {sum(map(bool, columns)):,} also by column")
    for oracle, (same, others) in {"messageformat": messageformat_oracle(), "icu4py": icu_oracle()}.items():
        print(f"  {oracle}: {same:,} the same, {sum(others.values()):,} not (another CLDR): {sorted(others)[:12]}")
    if differ:
        raise SystemExit(f"{len(differ)} vectors differ")
    return {"vectors": len(ours)}


def python_results(num: int) -> list[Result]:
    """What `templates/fill.py` makes of each case, locale by locale."""
    return [
        msgspec.to_builtins(loaded(data, case["sink"]).fill(case["template"], case["values"], case["reader"]))
        for locale, data in bundles()
        for case in cases(num, seed=LOCALES.index(locale))
    ]


@cache
def loaded(data: bytes, sink: Any) -> Filler:
    """A bundle for a sink, loaded once."""
    return load(data, sink)


def javascript_results(num: int) -> list[Result]:
    """What `edge/fill.js` makes of them, in one node process."""
    lines = [json.dumps({locale: json.loads(data) for locale, data in bundles()})]
    lines += [json.dumps(case | {"locale": each}) for each in LOCALES for case in cases(num, seed=LOCALES.index(each))]
    return node("vectors.mjs", lines)


def node(script: str, lines: list[str]) -> list[Any]:
    """What a script beside this file answers to lines of JSON."""
    path = Path(__file__).with_name(script)
    done = subprocess.run(["node", path], input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def columnar_results(num: int) -> list[Result | None]:
    """What `templates/columns.py` makes of them; None for values that no column of a table can hold."""
    results: list[Result | None] = []
    for locale, data in bundles():
        found: dict[int, Result] = {}
        alike: defaultdict[Any, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        for at, case in enumerate(cases(num, seed=LOCALES.index(locale))):
            types = tuple((slot, type(value).__name__) for slot, value in case["values"].items())
            if not {"list", "dict"} & {kind for _, kind in types}:
                alike[case["template"], case["sink"], types].append((at, case))
        for (template, sink, _), members in alike.items():
            frame = pl.DataFrame([case["values"] | {"reader": case["reader"]} for _, case in members])
            rows = fill_columns(data, template, frame, sink=sink).rows(named=True)
            found |= {at: as_result(row) for (at, _), row in zip(members, rows, strict=True)}
        results += [found.get(at) for at in range(num)]
    return results


def as_result(row: dict[str, Any]) -> Result:
    """A row of the columnar runtime in the words of the others."""
    if row["text"] is not None:
        return {"text": row["text"], "variant": row["variant"]}
    slot, _, why = row["reason"].partition(": ")
    return {"slot": slot, "why": why}


def messageformat_oracle() -> tuple[int, Counter[str]]:
    """How often npm `messageformat` says the same, and for which locale and template it does not."""
    if not Path(__file__).parents[2].joinpath("edge/node_modules/messageformat").is_dir():
        print("  npm messageformat is not installed")
        return 0, Counter()
    asked = [
        {"locale": locale, "name": name, "source": TEMPLATES[name][0], "values": {slot: number, "name": "Ann"}}
        for locale in LOCALES
        for name, slot in (("count", "count"), ("place", "place"))
        for number in TWIN_NUMBERS
    ]
    return compared(asked, node("oracle.mjs", [json.dumps(each) for each in asked]))


def icu_oracle() -> tuple[int, Counter[str]]:
    """The same of ICU's MessageFormat 1."""
    try:
        from icu4py.messageformat import MessageFormat  # noqa: PLC0415 - a test's extra
    except ImportError:
        print("  icu4py is not installed")
        return 0, Counter()
    asked = [
        {"locale": locale, "name": name, "values": {name: number}}
        for locale in LOCALES
        for name in TWINS
        for number in TWIN_NUMBERS
    ]
    return compared(
        asked, [MessageFormat(TWINS[each["name"]], each["locale"]).format(each["values"]) for each in asked]
    )


def compared(asked: list[dict[str, Any]], texts: list[str]) -> tuple[int, Counter[str]]:
    """How many texts are ours, and the locales and templates of the others."""
    by_locale = dict(bundles())
    same, others = 0, Counter[str]()
    for each, text in zip(asked, texts, strict=True):
        ours = loaded(by_locale[each["locale"]], "plain").write(each["name"], 0, each["values"])
        same += ours == text
        if ours != text:
            others[f"{each['locale']} {each['name']}: {text!r} for {ours!r}"] += 1
    return same, others


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
