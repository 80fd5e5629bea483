"""The promise: how often a shallow step may differ from the large model, and who may answer under it.

What can be kept without audits: the large model's own answer to an equal question passes, and so does a text that was
checked with every value before anybody saw it (`rule`). `Promise` adds what must be weighed: a probability for every
uncertain proposal, one cut for all of them, and audits that keep both honest. docs/promise.md has the mathematics.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from operator import mul
from random import Random

import msgspec
from msgspec import Struct

from stepwell.quality.audit import Interval, Sample, audit_share, interval
from stepwell.types import Label, Proposal, Ruling

CERTAIN = frozenset({"checked", "exact"})
SERVE = Ruling("serve")
SHUT = math.inf
"""The cut that nothing passes."""

NUM_ASKED, NUM_LABELS, NUM_AUDITS = 4000, 6000, 1000
"""How much of the past counts: uncertain proposals, labels, and audits."""
EVERY = 200
"""Requests or labels after which the promise is fitted anew; at the opening a quarter of it."""
LEAST_LABELS = 150
"""Labels without which nothing uncertain is served."""
SUREST = 12.0
"""Log odds beyond which nothing is more certain."""
LEAST_RIGHT = 0.5
"""No value makes an answer worth serving that is more likely wrong than right."""
VALUES = (0.1, 10.0)
"""How much less or more than the usual one an answer's value may count."""


def rule(step: str, proposal: Proposal) -> Ruling:  # noqa: ARG001 - `Promise.rule` looks at the step, too
    """Rule without having learned: only certain evidence passes."""
    kind = proposal.evidence.kind
    return SERVE if kind in CERTAIN else Ruling("refuse", f"the promise does not allow {kind} evidence")


KNOTS = (2.0, 4.0)
"""Log odds at which the curve bends that makes them true: p = .88 and .98."""
Bend = tuple[float, float, float]
"""What is added to log odds: everywhere, and for every unit above each knot."""


def bent(odds: float, bend: Bend) -> float:
    """True log odds: see `bend.py`."""
    return odds + bend[0] + bend[1] * max(0.0, odds - KNOTS[0]) + bend[2] * max(0.0, odds - KNOTS[1])


class Terms(Struct, frozen=True):
    """What is promised."""

    error: float
    """Share of requests that shallow steps may answer wrongly."""
    hit_error: float | None = None
    """Share of shallow answers that may be wrong."""
    audit: float = 0.02
    """Share of would-be shallow answers that the large model gives, too."""

    def strictest(self) -> float:
        """The smaller one of the two shares."""
        return self.error if self.hit_error is None else min(self.error, self.hit_error)


class Belief(Struct, frozen=True):
    """What is believed before labels say otherwise; the defaults were measured on two sets of questions."""

    bend: Bend = (0.09, 0.5, -1.06)
    """How the regression's log odds bend to true ones: see `bend.py`."""
    firmness: float = 60.0
    """The precision of each of these numbers."""
    caution: float = 1.2
    """Slack of the budget: this over the square root of as many labels as errors are promised among them."""


class Learned(Struct, frozen=True):
    """How one step's features say how likely its answers are right: log odds, then how they bend."""

    coefficients: tuple[float, ...]
    bend: Bend


BELIEF = Belief()


class Asked(Struct, frozen=True, gc=False):
    """An uncertain proposal as it was ruled on."""

    step: str
    features: tuple[float, ...]
    value: float
    request: int
    """How many requests there had been."""
    served: bool = False


class Fit(Struct, frozen=True):
    """What was learned; swapped in whole."""

    steps: Mapping[str, Learned]
    cut: float = SHUT
    """Served is what has value / (1 - p) above it."""
    version: int = 0
    num_labels: int = 0
    calibration: float = 1.0
    """Wrong answers that audits found for each that was expected."""


class Past(Struct, frozen=True):
    """What a fit is made from; values that nobody changes any more."""

    terms: Terms
    belief: Belief
    asked: list[Asked]
    labels: list[Label]
    num_requests: int
    """Requests in which `asked` happened."""
    version: int


class Report(Struct, frozen=True):
    """How the promise stands, for people and metrics. The intervals are of 95 %."""

    terms: Terms
    num_requests: int
    num_served: int
    num_audits: int
    num_labels: int
    error: Interval
    hit_error: Interval
    cut: float
    calibration: float
    version: int


class Promise:
    """Rules on what steps propose, and learns from labels. Not for several threads, but for `quality.cut.fit`."""

    def __init__(self, terms: Terms, chance: Random, belief: Belief = BELIEF) -> None:
        self.terms, self.chance, self.belief = terms, chance, belief
        self.fit = Fit({})
        self.asked: deque[Asked] = deque(maxlen=NUM_ASKED)
        self.labels: deque[Label] = deque(maxlen=NUM_LABELS)
        self.audits: deque[Sample] = deque(maxlen=NUM_AUDITS)
        self.num_requests = self.num_served = self.num_audits = self.num_labels = 0
        self.usual_value = self.reserved = 0.0
        """`reserved`: share of requests that gated specialists may answer wrongly; it is not there for others."""
        self.fitted_at = -EVERY

    def request(self) -> None:
        """Count a request, whatever becomes of it: the error is a share of these."""
        self.num_requests += 1

    def rule(self, step: str, proposal: Proposal) -> Ruling:
        """Say whether a shallow step's proposal is good enough to be the answer."""
        evidence = proposal.evidence
        if evidence.kind in CERTAIN:
            return SERVE
        features = evidence.features
        if not features or not all(map(math.isfinite, features)):
            return Ruling("refuse", "evidence without sound features", 0.0)
        value = self.value(proposal.answer.saved_usd)
        ruling = self.weighed(self.right(step, features), value)
        self.asked.append(Asked(step, features, value, self.num_requests, ruling.verdict == "serve"))
        return ruling

    def weighed(self, right: float, value: float) -> Ruling:
        """Rule on an answer by its probability of being right and by its value."""
        if not self.passes(right, value):
            return Ruling("refuse", f"p = {right:.3f}: not sure enough", right)
        share = audit_share(right, self.terms)
        if self.chance.random() < share:
            self.num_audits += 1
            return Ruling("audit", f"p = {right:.3f}: audited", right, share)
        self.num_served += 1
        return Ruling("serve", f"p = {right:.3f}", right, share)

    def passes(self, right: float, value: float = 1.0) -> bool:
        """Whether an answer is good enough: to be served, or to be waited for."""
        return right >= LEAST_RIGHT and value / (1 - right) > self.fit.cut

    def right(self, step: str, features: tuple[float, ...]) -> float:
        """The probability that an answer is right; 0 where nothing is known of such a one."""
        learned = self.fit.steps.get(step)
        if learned is None or len(learned.coefficients) != len(features):
            return 0.0
        odds = bent(sum(map(mul, learned.coefficients, features)), learned.bend)
        return 1 / (1 + math.exp(-max(-SUREST, min(SUREST, odds))))

    def value(self, saved_usd: float | None) -> float:
        """An answer's value, where 1 is the usual one."""
        if not saved_usd or not math.isfinite(saved_usd) or saved_usd < 0:
            return 1.0
        self.usual_value += (saved_usd - self.usual_value) * (0.01 if self.usual_value else 1.0)
        return max(VALUES[0], min(VALUES[1], saved_usd / self.usual_value))

    def learn(self, label: Label) -> None:
        """Take in what became known of one proposal, here or in another process; unsound labels are left aside."""
        if not label.features or not all(map(math.isfinite, label.features)) or not 0 < label.share <= 1:
            return
        self.labels.append(label)
        self.num_labels += 1
        if label.would_serve:
            self.audits.append(Sample(not label.right, label.share))

    def due(self) -> bool:
        """Whether enough has come in for a new fit."""
        wait = min(EVERY, max(EVERY // 8, self.num_labels // 10))
        return self.num_labels >= LEAST_LABELS and self.num_requests - self.fitted_at >= wait

    def past(self) -> Past:
        """Copy what a fit needs, so that it can be made in another thread."""
        self.fitted_at = self.num_requests
        asked = list(self.asked)
        requests = self.num_requests - asked[0].request + 1 if asked else 0
        left = msgspec.structs.replace(self.terms, error=max(0.0, self.terms.error - self.reserved))
        return Past(left, self.belief, asked, list(self.labels), requests, self.fit.version)

    def adopt(self, fit: Fit) -> None:
        """Rule by a new fit from here on."""
        self.fit = fit

    def refit(self) -> Fit:
        """Fit and adopt, here and now: some tens of milliseconds."""
        from stepwell.quality.cut import fit  # noqa: PLC0415 - numpy is needed by nobody who only serves what is certain

        self.adopt(fit(self.past()))
        return self.fit

    def report(self) -> Report:
        """How the promise stands."""
        hit_error = interval(self.audits)
        served = self.num_served / self.num_requests if self.num_requests else 0.0
        error = Interval(hit_error.low * served, hit_error.estimate * served, hit_error.high * served)
        return Report(
            self.terms,
            self.num_requests,
            self.num_served,
            self.num_audits,
            self.num_labels,
            error,
            hit_error,
            self.fit.cut,
            self.fit.calibration,
            self.fit.version,
        )
