"""The house writer as it ships, beside itself in 16 bits: `writer_bytes_ratio`.

Stated before anything was run: both files write greedily in the engine for every prompt of E2E's test set. Non-inferior
is the shipped file where the lower bound (one-sided, 95 %, paired by prompt) of its BLEU minus the 16-bit file's lies
above -0.5, and that of its share of texts without a slot error above -1 %. Where either does not, the ratio is 1: then
the 16-bit file is what could ship.

The search that made the shipped file read this set once, as its gate (`models/house-writer/README.md`).

    STEPWELL_DATA=... python -m bench.quantize.writer
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from recipes.writer import data

from stepwell.campaigns import quantize_score
from stepwell.campaigns.quantize_task import BLEU, Row
from stepwell.campaigns.served import served
from stepwell.quantize.card import bounds
from stepwell.quantize.export import to_gguf
from stepwell.quantize.frontier import Difference
from stepwell.quantize.search import RIGHT_MARGIN, Margins

FOLDER, KEPT = Path("models/house-writer"), Path("runs/bench-quantize-writer")
MARGINS = Margins(bleu=0.5, right=RIGHT_MARGIN)
ALPHA, RESAMPLES, SEED = 0.05, 4000, 0
MAX_TOKENS = 110


def measure(*, quick: bool = False) -> dict[str, float]:
    """The figures; a quick run is as long, for fewer prompts show nothing."""
    del quick
    logging.getLogger("gguf").setLevel(logging.WARNING)
    (shipped,) = FOLDER.glob("*.gguf")
    whole = to_gguf(FOLDER, KEPT / "parent.gguf", "F16")
    rows = [Row(mr, refs[0], tuple(refs)) for mr, refs in data.read("test").items()]
    said, parent = (texts(file, rows) for file in (shipped, whole))
    settings = quantize_score.Settings(BLEU, MARGINS, ALPHA, RESAMPLES, SEED)
    found = quantize_score.compared(rows, said, parent, settings)
    ratio = shipped.stat().st_size / whole.stat().st_size
    for each in found:
        print(f"  {each.metric}: {each.score:.4g} for {each.parent:.4g}, bounds {bounds(each)}, margin {each.margin:g}")
    print(f"  {shipped.name}: {shipped.stat().st_size:,} of {whole.stat().st_size:,} bytes, {ratio:.1%}", flush=True)
    return {
        "writer_bytes_ratio": round(ratio if all(each.passes for each in found) else 1.0, 4),
        **{f"writer_{each.metric}_low": round(each.low, 4) for each in found},
        **{f"writer_{each.metric}_gap": round(gap(each), 4) for each in found},
    }


def texts(file: Path, rows: list[Row]) -> list[str]:
    """What a file writes."""
    return served(file, [each.prompt for each in rows], max_tokens=MAX_TOKENS, watch=lambda _: None).texts


def gap(told: Difference) -> float:
    """Score minus the 16-bit file's."""
    return told.score - told.parent


if __name__ == "__main__":
    print(json.dumps(measure()))
