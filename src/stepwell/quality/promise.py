"""The promise: how often a shallow step may differ from the large model, and who may answer under it.

The rule that can honestly be kept without audits: the large model's own answer to an equal question passes, and so does
a text that was checked with every value before anybody saw it; everything else goes one step down.
"""

from __future__ import annotations

from stepwell.types import Proposal, Ruling

CERTAIN = frozenset({"checked", "exact"})
SERVE = Ruling("serve")


def rule(step: str, proposal: Proposal) -> Ruling:  # noqa: ARG001 - a promise that learns looks at the step, too
    """Say whether a shallow step's proposal is good enough to be the answer."""
    kind = proposal.evidence.kind
    return SERVE if kind in CERTAIN else Ruling("refuse", f"the promise does not allow {kind} evidence")
