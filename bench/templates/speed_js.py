"""How many texts one core fills in JavaScript, beside npm `messageformat` and `@fluent/bundle`, in one node process."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

from bench.templates.audience import MESSAGE, OPENINGS, bundle_of_24
from bench.templates.vectors import node

PEERS = Path(__file__).parents[2] / "edge" / "node_modules"
FLUENT = (
    "result = { $kind ->\n    [cup] { $nth ->\n"
    "        [one] { $wins ->\n            [one] OPENING { $name }: one win, and you are { $place }st in the cup.\n"
    "           *[other] OPENING { $name }: { $wins } wins, and you are { $place }st in the cup.\n        }\n"
    "        [two] OPENING { $name }: { $wins } wins, and you are { $place }nd in the cup.\n"
    "        [few] OPENING { $name }: { $wins } wins, and you are { $place }rd in the cup.\n"
    "       *[other] { $wins ->\n            [one] OPENING { $name }: one win, and you are { $place }th in the cup.\n"
    "           *[other] OPENING { $name }: { $wins } wins, and you are { $place }th in the cup.\n        }\n    }\n"
    "   *[other] { $wins ->\n        [one] OPENING { $name }: one win in the league.\n"
    "       *[other] OPENING { $name }: { $wins } wins in the league.\n    }\n}\n"
)
"""The same message in Fluent, which has no ordinals: the caller says which one it is, at no cost."""


def measure() -> dict[str, float | None]:
    """Texts a CPU second, and how many times those of the peers: medians of interleaved rounds."""
    figures: dict[str, float | None] = {"js_fills_per_cpu_s": None, "js_vs_messageformat": None, "js_vs_fluent": None}
    if shutil.which("node") is None or not (PEERS / "messageformat").is_dir():
        print("  node or its packages are not installed: make bench gets them")
        return figures
    asked = {
        "bundle": json.loads(bundle_of_24()),
        "messageformat": [MESSAGE.format(opening=opening) for opening in OPENINGS],
        "fluent": [FLUENT.replace("OPENING", opening) for opening in OPENINGS],
    }
    rounds = node("speed.mjs", [json.dumps(asked)])
    rates = {name: statistics.median(each[name] for each in rounds) for name in ("ours", "messageformat", "fluent")}
    for name, rate in rates.items():
        print(f"  {name:<14} {rate:>12,.0f} texts a CPU second")
    ours = rates["ours"]
    return {
        "js_fills_per_cpu_s": round(ours),
        "js_vs_messageformat": round(ours / rates["messageformat"], 1),
        "js_vs_fluent": round(ours / rates["fluent"], 1),
    }
