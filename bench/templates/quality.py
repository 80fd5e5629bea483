"""How good templates are: the E2E test set in BLEU and slot errors, and how many ViGGO test acts they can say."""

from __future__ import annotations

import os
from pathlib import Path

from bench.templates import e2e, viggo

NEEDS = "STEPWELL_DATA is not set: point it to a folder with e2e/ and viggo/ in it"


def measure() -> dict[str, float | None]:
    """Both sets; nothing of a test set is read before the templates are made."""
    data = os.environ.get("STEPWELL_DATA")
    if not data:
        print(f"  {NEEDS}")
        return {"e2e_bleu": None, "e2e_slot_errors": None, "viggo_coverage": None}
    return e2e.measure(Path(data) / "e2e") | viggo.measure(Path(data) / "viggo")
