"""How the promise stands: for people as lines, for Prometheus as text."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stepwell.quality.audit import Interval
from stepwell.quality.promise import Report

GAUGES = {
    "stepwell_promise_error_share": "Share of requests answered wrongly by shallow steps, by audits (95 % interval).",
    "stepwell_promise_hit_error_share": "Share of shallow answers that are wrong, by audits (95 % interval).",
    "stepwell_promise_error_promised": "What [promise] error says.",
    "stepwell_promise_cut": "Served is what has value / (1 - p) above this.",
    "stepwell_promise_calibration": "Wrong answers that audits found for each that was expected.",
}
COUNTERS = {
    "stepwell_promise_served_total": "Uncertain answers served.",
    "stepwell_promise_audits_total": "Would-be answers that the large model gave, too.",
    "stepwell_promise_labels_total": "Proposals whose truth became known.",
    "stepwell_promise_judge_usd_total": "USD that judging cost.",
    "stepwell_promise_unclear_total": "Withheld proposals about which the judge had no verdict.",
    "stepwell_promise_dropped_total": "Withheld proposals that nobody had time to judge.",
}


def prometheus(report: Report, *, usd: float, num_unclear: int, num_dropped: int, worker: str = "") -> bytes:
    """The metrics of one process, in text format 0.0.4."""
    values: dict[str, float | Interval] = {
        "stepwell_promise_error_share": report.error,
        "stepwell_promise_hit_error_share": report.hit_error,
        "stepwell_promise_error_promised": report.terms.error,
        "stepwell_promise_cut": report.cut,
        "stepwell_promise_calibration": report.calibration,
        "stepwell_promise_served_total": report.num_served,
        "stepwell_promise_audits_total": report.num_audits,
        "stepwell_promise_labels_total": report.num_labels,
        "stepwell_promise_judge_usd_total": usd,
        "stepwell_promise_unclear_total": num_unclear,
        "stepwell_promise_dropped_total": num_dropped,
    }
    lines: list[str] = []
    for name, about in (GAUGES | COUNTERS).items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {'gauge' if name in GAUGES else 'counter'}"]
        lines += [f"{name}{labels} {number(value)}" for labels, value in samples(values[name], worker)]
    return ("\n".join(lines) + "\n").encode()


def samples(value: float | Interval, worker: str) -> Iterator[tuple[str, float]]:
    """One sample, or one for each bound of an interval."""
    about = [f'worker="{worker}"'] if worker else []
    if not isinstance(value, Interval):
        yield written(about), value
        return
    for bound in ("low", "estimate", "high"):
        yield written([f'bound="{bound}"', *about]), getattr(value, bound)


def written(labels: list[str]) -> str:
    """Labels as the format wants them."""
    return "{" + ",".join(labels) + "}" if labels else ""


def number(value: float) -> str:
    """A number as the format wants it."""
    return "+Inf" if value == math.inf else repr(float(value))


def lines(report: Report) -> Iterator[str]:
    """What `stepwell promise` prints."""
    terms = report.terms
    yield f"promised        at most {terms.error:.2%} of requests answered wrongly by shallow steps"
    if terms.hit_error is not None:
        yield f"                at most {terms.hit_error:.2%} of their answers wrong"
    yield f"requests        {report.num_requests:,}, of which {report.num_served:,} answered on uncertain evidence"
    yield f"audits          {report.num_audits:,}, and {report.num_labels:,} labels in all"
    if not report.num_audits:
        why = "none of these answers was audited so far" if report.num_served else "nothing uncertain was served"
        yield f"errors          not known yet: {why}"
        return
    yield f"errors          {shares(report.error)} of requests"
    yield f"                {shares(report.hit_error)} of uncertain answers"
    verdict = "holds" if report.error.high <= terms.error else "holds, as far as is known"
    yield f"the promise     {verdict if report.error.estimate <= terms.error else 'DOES NOT HOLD at the moment'}"


def shares(interval: Interval) -> str:
    """An estimate with its bounds."""
    return f"{interval.estimate:.2%} (95 %: {interval.low:.2%} to {interval.high:.2%})"
