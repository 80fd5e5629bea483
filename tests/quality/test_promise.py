"""The promise: what passes before and after there is evidence, what it holds, and what nobody can do to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.quality.promise import LEAST_LABELS, NUM_ASKED, NUM_LABELS, Promise, Terms, rule
from stepwell.types import Answer, Evidence, Label, Proposal

Features = tuple[float, ...]


def proposal(features: Features, usd: float | None = None, kind: str = "semantic") -> Proposal:
    return Proposal(Answer(form="json", saved_usd=usd), Evidence(kind, "", features))  # type: ignore[arg-type]


def label(features: Features, *, right: bool, who: bytes = b"", predicted: float = 0.0, share: float = 1.0) -> Label:
    return Label("cache", b"", features, right, predicted, share, predicted > 0, 0.0, 1, who)


def world(num: int, seed: int, shift: float = 0.0) -> Iterator[tuple[Features, bool]]:
    """Proposals whose truth is a coin with the odds that one feature tells; the other tells nothing."""
    chance = Random(seed)
    for _ in range(num):
        odds = chance.gauss(2.5, 2.5)
        yield (1.0, odds, chance.gauss(0, 1)), chance.random() < 1 / (1 + math.exp(shift - odds))


def live(
    promise: Promise, stream: Iterator[tuple[Features, bool]], usd: float | None = None
) -> list[tuple[bool, bool]]:
    """Let it rule on a stream and tell it what went down: for each request, whether it was served and right."""
    told = []
    for features, right in stream:
        promise.request()
        ruling = promise.rule("cache", proposal(features, usd))
        told.append((ruling.verdict == "serve", right))
        if ruling.verdict != "serve":
            audited = ruling.verdict == "audit"
            promise.learn(
                Label("cache", b"", features, right, ruling.right, ruling.share if audited else 1.0, audited, 0.0, 1)
            )
        if promise.due():
            promise.refit()
    return told


def wrong_share(told: list[tuple[bool, bool]]) -> float:
    return sum(served and not right for served, right in told) / len(told)


def served_share(told: list[tuple[bool, bool]]) -> float:
    return sum(served for served, _ in told) / len(told)


def test_before_evidence_only_what_is_certain_passes() -> None:
    promise = Promise(Terms(0.1), Random(1))
    for kind in ("exact", "checked"):
        assert promise.rule("cache", proposal((), kind=kind)).verdict == rule("cache", proposal((), kind=kind)).verdict
        assert promise.rule("cache", proposal((), kind=kind)).verdict == "serve"
    told = live(promise, world(LEAST_LABELS - 1, 1))
    assert served_share(told) == 0
    assert promise.fit.version == 0
    assert rule("cache", proposal((1.0,))).verdict == "refuse"


def test_it_opens_when_there_is_evidence() -> None:
    promise = Promise(Terms(0.05), Random(1))
    assert served_share(live(promise, world(1500, 1))[1000:]) > 0.3


@pytest.mark.parametrize("error", [0.01, 0.02, 0.05])
def test_it_holds_what_it_promises(error: float) -> None:
    """In a world whose odds bend otherwise than is believed beforehand: it may be a tenth above for a while, no more."""
    told = [live(Promise(Terms(error), Random(seed)), world(4000, seed)) for seed in range(6)]
    assert sum(map(wrong_share, told)) / len(told) <= 1.1 * error
    assert sum(map(served_share, told)) / len(told) > {0.01: 0.3, 0.02: 0.4, 0.05: 0.5}[error]


def test_it_holds_the_share_of_hits_too() -> None:
    told = [live(Promise(Terms(1.0, hit_error=0.02, audit=0.05), Random(seed)), world(4000, seed)) for seed in range(6)]
    assert sum(wrong_share(each) / served_share(each) for each in told) / len(told) <= 0.025
    assert sum(map(served_share, told)) / len(told) > 0.25


def test_nothing_promised_means_nothing_uncertain() -> None:
    assert served_share(live(Promise(Terms(0.0), Random(1)), world(600, 1))) == 0


def test_it_recovers_when_the_same_features_come_to_mean_less() -> None:
    """The world shifts by one unit of log odds without a sign: only audits can tell."""
    late = []
    for seed in range(8):
        promise = Promise(Terms(0.05, audit=0.1), Random(seed))
        live(promise, world(2500, seed))
        late.append(wrong_share(live(promise, world(2500, seed + 100, shift=1.0))[1000:]))
    assert sum(late) / len(late) <= 0.055


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=4).map(tuple))
def test_unsound_features_are_refused_and_never_learned(features: Features) -> None:
    promise = Promise(Terms(0.1), Random(1))
    live(promise, world(300, 1))
    known = promise.num_labels
    sound = len(features) > 0 and all(map(math.isfinite, features))
    verdict = promise.rule("cache", proposal(features)).verdict
    assert verdict == "refuse" or (sound and len(features) == 3)
    promise.learn(label(features, right=True))
    assert promise.num_labels - known == sound
    assert promise.rule("another step", proposal((1.0, 9.0, 0.0))).verdict == "refuse"


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan])
def test_a_label_with_an_impossible_share_is_left_aside(share: float) -> None:
    promise = Promise(Terms(0.1), Random(1))
    promise.learn(label((1.0, 2.0), right=True, share=share))
    assert promise.num_labels == 0


def test_dear_answers_may_use_more_of_the_budget() -> None:
    promise = Promise(Terms(0.03), Random(1))
    live(promise, world(2000, 1), usd=0.01)
    features = [features for features, _ in world(800, 9)]
    passed = {
        usd: sum(promise.rule("cache", proposal(each, usd)).verdict != "refuse" for each in features)
        for usd in (0.002, 0.01)
    }
    assert passed[0.002] < passed[0.01]
    for usd in (math.nan, math.inf, -1.0, 0.0, None):
        assert promise.value(usd) == 1.0
    assert promise.rule("cache", proposal((1.0, -1.0, 0.0), 1e9)).verdict == "refuse"


def test_a_new_process_learns_from_the_labels_of_others() -> None:
    told: list[Label] = []
    first = Promise(Terms(0.05), Random(1))
    first_learn = first.learn
    first.learn = lambda each: (told.append(each), first_learn(each))[1]  # type: ignore[method-assign, func-returns-value]
    live(first, world(3000, 1))
    second = Promise(Terms(0.05), Random(2))
    for each in told:
        second.learn(each)
    assert second.due()
    second.refit()
    after = live(second, world(1500, 7))
    assert served_share(after[:100]) > 0.3
    assert wrong_share(after) < 0.06
    assert second.report().num_labels == first.report().num_labels + sum(1 for served, _ in after if not served)


def test_one_principal_cannot_open_it_for_everybody() -> None:
    """Labels of one caller who finds every nonsense right, five times as many as of all others together."""
    fair, bent = Promise(Terms(0.05), Random(1)), Promise(Terms(0.05), Random(1))
    for number, (features, right) in enumerate(world(400, 1)):
        for promise in (fair, bent):
            promise.learn(label(features, right=right, who=b"%d" % (number % 40)))
    for features, _ in world(2000, 2):
        bent.learn(label(features, right=True, who=b"attacker"))
    fair.refit()
    bent.refit()
    doubtful = (1.0, 0.0, 0.0)
    assert abs(bent.right("cache", doubtful) - fair.right("cache", doubtful)) < 0.3


def test_labels_of_other_features_are_not_mixed_in() -> None:
    promise = Promise(Terms(0.05), Random(1))
    for features, right in world(300, 1):
        promise.learn(
            Label("cache", b"", (*features, 1.0), not right, 0.0, 1.0, would_serve=False, at_s=0.0, version=0)
        )
    live(promise, world(600, 2))
    assert promise.right("cache", (1.0, 6.0, 0.0)) > 0.9


def test_what_it_remembers_is_bounded() -> None:
    promise = Promise(Terms(0.05), Random(1))
    for number in range(NUM_LABELS + 10):
        promise.learn(label((1.0, float(number % 7)), right=number % 3 > 0))
        promise.rule("cache", proposal((1.0, 2.0)))
    assert len(promise.labels) == NUM_LABELS
    assert len(promise.asked) == NUM_ASKED


def test_the_report_encloses_the_truth() -> None:
    inside = below = 0
    for seed in range(24):
        promise = Promise(Terms(0.05, audit=0.1), Random(seed))
        told = live(promise, world(1500, seed))
        report = promise.report()
        inside += report.error.low <= wrong_share(told) <= report.error.high
        below += wrong_share(told) <= report.error.high
        assert report.num_served == sum(served for served, _ in told)
    assert inside >= 22
    assert below >= 23
