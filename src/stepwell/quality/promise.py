"""The promise: how often a shallow step may differ from the large model, and who may answer under it.

The one rule that can honestly be kept without audits: exact evidence passes, everything else goes one step down.
"""

from __future__ import annotations

from stepwell.types import Evidence


def allows(evidence: Evidence) -> bool:
    """Decide whether a shallow step's proposal is good enough to be the answer."""
    return evidence.kind == "exact"
