"""What templates cost and how good they are, beside their peers: `python -m bench.templates`.

The last line is one JSON object; what could not be measured here is null, with the reason above.
"""

from __future__ import annotations

from bench import table
from bench.templates import audience, calls, edge_cost, quality, speed_js, speed_py, vectors, wire

PARTS = (speed_py, speed_js, audience, calls, quality, wire, edge_cost, vectors)
ROWS = (
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


if __name__ == "__main__":
    table.run(__doc__, PARTS, ROWS)
