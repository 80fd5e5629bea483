"""What templates cost and how good they are, beside their peers: `python -m bench.templates`.

The last line is one JSON object; what could not be measured here is null, with the reason above.
"""

from __future__ import annotations

import argparse
import json
import platform

from bench import cpu
from bench.templates import audience, calls, edge_cost, quality, speed_js, speed_py, vectors, wire

Figures = dict[str, float | int | None]
PARTS = (speed_py, speed_js, audience, calls, quality, wire, edge_cost, vectors)
ROWS = (
    # key, what, must, aim, and whether less is better
    ("py_fills_per_cpu_s", "Python: texts filled per CPU second", 300_000, 600_000, False),
    ("js_fills_per_cpu_s", "JavaScript: texts filled per CPU second", 800_000, 1_600_000, False),
    ("js_vs_messageformat", "times faster than npm messageformat", 50, 150, False),
    ("js_vs_fluent", "times faster than @fluent/bundle", 3, 8, False),
    ("fill_1m_s", "a million readers filled, seconds", 2, 1, True),
    ("write_1m_s", "… and written as Parquet, seconds", 5, 3, True),
    ("model_calls_1k", "model calls for a thousand readers", 300, 150, True),
    ("model_calls_100m", "model calls for a hundred million readers", 300, 150, True),
    ("e2e_bleu", "E2E test set, BLEU", 60, 65, False),
    ("e2e_slot_errors", "E2E test set, slot errors", 0.0, 0.0, True),
    ("viggo_coverage", "ViGGO test acts answered", 0.85, 0.95, False),
    ("bundle_br_bytes", "24 templates on the wire, bytes of brotli", 700, 500, True),
    ("update_bytes", "an update of 5 % of them, bytes", 120, 80, True),
    ("nginx_cpu_us_per_get", "nginx, CPU microseconds a GET", 50, 30, True),
    ("workerd_cpu_ms_per_fill", "workerd, CPU milliseconds a fill", 0.4, 0.2, True),
    ("vectors", "byte-identical results of the three runtimes", 5000, 5000, False),
)


def main() -> None:
    """Measure part by part, then print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [part.__name__.rpartition(".")[2] for part in PARTS]
    parser.add_argument("--only", choices=names, nargs="+", default=names, help="these parts; the rest stays null")
    wanted = parser.parse_args().only
    print(f"{cpu.machine()}, Python {platform.python_version()}, {platform.system()} {platform.release()}", flush=True)
    figures: Figures = {key: None for key, *_ in ROWS}
    for name, part in zip(names, PARTS, strict=True):
        if name in wanted:
            print(f"{name} …", flush=True)
            figures.update(part.measure())
    for key, what, must, aim, less in ROWS:
        print(line(what, figures[key], must, aim, less=less))
    print(json.dumps(figures))


def line(what: str, figure: float | None, must: float, aim: float, *, less: bool) -> str:
    """One row of the table."""
    sign = "≤" if less else "≥"
    bounds = f"must {sign} {must:g}, aim {sign} {aim:g}"
    if figure is None:
        return f"{what:<46} {'not measured':>12}   {bounds}"
    held = [figure <= bound if less else figure >= bound for bound in (must, aim)]
    verdict = "reaches the aim" if held[1] else "holds the must" if held[0] else "MISSES THE MUST"
    return f"{what:<46} {figure:>12,.4g}   {bounds}: {verdict}"


if __name__ == "__main__":
    main()
