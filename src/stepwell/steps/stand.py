"""How far a specialist may go right now: what its promotion says, held against what it was promoted for.

Nothing is served but by a signed verdict, of the very file that is served, and within what the promise allows.
"""

from __future__ import annotations

import logging
from time import monotonic

from stepwell.errors import StepwellError
from stepwell.quality.promotion import Promotion, Standing
from stepwell.quality.slicing import Slicer, slicer
from stepwell.quality.verdict import passing
from stepwell.signing import Trusted

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often the file is looked at: a roll-back anywhere is known everywhere within this time."""
GOING = frozenset({"shadow", "canary", "live"})


class Stand:
    """One process's view of a promotion."""

    def __init__(self, promotion: Promotion, keys: Trusted, *, model: str, error: float) -> None:
        """`model`: what is served, as the gate names it; `error`: what the promise allows."""
        self.promotion, self.keys, self.model, self.error = promotion, keys, model, error
        self.now = Standing()
        self.looked_s = -LOOK_S
        self.checked = self.against = ""
        """The verdict that was looked at, and what speaks against serving by it."""
        self.margin = 1.0
        """As it was signed."""
        self.slice_of: Slicer | None = None
        self.slices: frozenset[str] = frozenset()
        """The slices that passed, where not all had to."""

    def stage(self) -> tuple[str, str]:
        """The stage, empty where it may do nothing at all, and why no more; read anew now and then, in microseconds."""
        if monotonic() - self.looked_s >= LOOK_S:
            self.look()
        now = self.now
        if now.stage not in GOING:
            return now.stage, f"rolled back: {now.reason}" if now.stage else "nothing was promoted"
        if self.against:
            return "", self.against
        if now.stage != "shadow" and self.margin > self.error:
            return "", f"the gate's margin is {self.margin:.2%}, and the promise allows {self.error:.2%}"
        return now.stage, "in the shadow" if now.stage == "shadow" else now.stage

    def outside(self, prompt: str) -> str:
        """Why a prompt is none of those that passed the gate; empty where it is one."""
        if self.slice_of is None:
            return ""
        name = self.slice_of(prompt)
        return "" if name in self.slices else f"the slice {name[:40]!r} did not pass the gate"

    def look(self) -> None:
        """Read the promotion; what cannot be read serves nothing."""
        self.looked_s = monotonic()
        before = self.now.stage, self.against
        try:
            self.now = self.promotion.standing()
            if self.now.verdict != self.checked:
                self.against = self.check(self.now.verdict)
                self.checked = self.now.verdict
        except StepwellError as error:
            self.against, self.checked = str(error), ""
        if (self.now.stage, self.against) != before:
            but = f", but {self.against}" if self.against else ""
            level = logging.INFO if self.now.stage in GOING and not but else logging.WARNING
            log.log(level, "the specialist at %s is %s%s", self.promotion.folder, self.now.stage or "not promoted", but)

    def check(self, verdict: str) -> str:
        """What speaks against a verdict. Raises DistillError and NotAuthentic where it is none."""
        _, report = self.promotion.verdict(self.keys, verdict)
        if report.decision != "promote":
            return f"the gate said {report.decision}"
        self.margin = report.margin
        self.slices = frozenset(passing(report.findings))
        self.slice_of = slicer(report.slice_by) if report.slice_by else None
        if report.model != self.model:
            return f"the gate judged the model {report.model[:16]}, and this one is {self.model[:16]}"
        return ""
