"""Counters and histograms in Prometheus' text format, under OpenTelemetry's gen_ai names where there are any."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from msgspec import Struct

from stepwell.ledger.entry import Entry

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
OPERATIONS = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}


class Metric(Struct, frozen=True):
    """One row of the table: OpenTelemetry's name where it has one, ours, and what is counted. Buckets: a histogram."""

    otel: str
    name: str
    help: str
    buckets: tuple[float, ...] = ()


# Boundaries are those of the semantic conventions for generative AI (status: development).
DURATION = Metric("gen_ai.server.request.duration", "gen_ai_server_request_duration_seconds", "Whole request.", SECONDS)
FIRST = Metric(
    "gen_ai.server.time_to_first_token",
    "gen_ai_server_time_to_first_token_seconds",
    "Until the first chunk of the answer.",
    FIRST_SECONDS,
)
USED = Metric("gen_ai.client.token.usage", "gen_ai_client_token_usage", "Tokens of one request.", TOKENS)
REQUESTS = Metric("", "stepwell_requests_total", "Requests by the step that answered (none: no answer) and status.")
USD = Metric("", "stepwell_usd_total", "USD spent.")
LARGE_USD = Metric("", "stepwell_large_usd_total", "USD that the large model would have cost.")
REFUSED = Metric("", "stepwell_refused_total", "Requests that were not let in, by code and status.")
LOST = Metric("", "stepwell_ledger_lost_total", "Ledger entries lost because the disk refused them for too long.")
TABLE = (DURATION, FIRST, USED, REQUESTS, USD, LARGE_USD, REFUSED, LOST)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts by bucket, and their sum."""

    __slots__ = ("buckets", "counts", "total")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.buckets, value)] += 1
        self.total += value


class Series:
    """All that is counted for requests that agree in every label."""

    __slots__ = ("duration", "first", "inputs", "large_usd", "num", "outputs", "usd")

    def __init__(self) -> None:
        self.num, self.usd, self.large_usd = 0, 0.0, 0.0
        self.duration, self.first = Histogram(SECONDS), Histogram(FIRST_SECONDS)
        self.inputs, self.outputs = Histogram(TOKENS), Histogram(TOKENS)


Told = tuple[str, str, str, int, bool]
"""What tells one series from another: kind, model, step, status, whether the answer was complete."""


class Metrics:
    """All metrics of one process. `observe` runs in the ledger's thread, `refused` in the event loop."""

    def __init__(self) -> None:
        self.series: dict[Told, Series] = {}
        self.num_refused: defaultdict[tuple[str, int], int] = defaultdict(int)

    def observe(self, entry: Entry) -> None:
        """Count one request."""
        told = (entry.kind, entry.model, entry.step, entry.status, entry.complete)
        series = self.series.get(told)
        if series is None:
            series = self.series[told] = Series()
        series.num += 1
        series.usd += entry.usd
        series.large_usd += entry.large_usd
        series.duration.add(entry.seconds)
        series.first.add(entry.first_s)
        series.inputs.add(entry.input_tokens)
        series.outputs.add(entry.output_tokens)

    def refused(self, code: str, status: int) -> None:
        """Count a request that was not let in."""
        self.num_refused[code, status] += 1

    def text(self, *, num_lost: int = 0) -> bytes:
        """Everything in Prometheus' text format, version 0.0.4; `num_lost` ledger entries were lost."""
        samples: dict[str, list[str]] = {metric.name: [] for metric in TABLE}
        for told, series in list(self.series.items()):
            for metric, labels, value in counted(told, series):
                samples[metric.name] += lines(metric, labels, value)
        for (code, status), num in list(self.num_refused.items()):
            samples[REFUSED.name] += lines(REFUSED, (("code", code), ("status", str(status))), num)
        samples[LOST.name] += lines(LOST, (), num_lost)
        text: list[str] = []
        for metric in TABLE:
            about = f"{metric.help} ({metric.otel})" if metric.otel else metric.help
            kind = "histogram" if metric.buckets else "counter"
            text += [f"# HELP {metric.name} {about}", f"# TYPE {metric.name} {kind}", *samples[metric.name]]
        return ("\n".join(text) + "\n").encode()


def counted(told: Told, series: Series) -> Iterator[tuple[Metric, Labels, float | Histogram]]:
    """The samples of one series: metric, labels, value."""
    kind, model, step, status, complete = told
    about: Labels = (
        ("gen_ai_operation_name", OPERATIONS[kind]),
        ("gen_ai_request_model", model),
        ("stepwell_step", step or "none"),
        ("status", str(status)),
    )
    labels = about if complete else (*about, ("error_type", str(status)))
    yield REQUESTS, labels, series.num
    yield USD, labels, series.usd
    yield LARGE_USD, labels, series.large_usd
    yield DURATION, labels, series.duration
    if step:
        yield FIRST, labels, series.first
        yield USED, (*labels, ("gen_ai_token_type", "input")), series.inputs
        yield USED, (*labels, ("gen_ai_token_type", "output")), series.outputs


def lines(metric: Metric, labels: Labels, value: float | Histogram) -> list[str]:
    """One sample as text: a line, or the lines of a histogram."""
    if not isinstance(value, Histogram):
        return [f"{metric.name}{written(labels)} {value!r}"]
    bounds = (*map(repr, map(float, value.buckets)), "+Inf")
    counts = list(accumulate(value.counts))
    told = [
        f"{metric.name}_bucket{written((*labels, ('le', bound)))} {seen}"
        for bound, seen in zip(bounds, counts, strict=True)
    ]
    total, num = f"{metric.name}_sum{written(labels)}", f"{metric.name}_count{written(labels)}"
    return [*told, f"{total} {value.total!r}", f"{num} {counts[-1]}"]


def written(labels: Labels) -> str:
    """Labels as the format wants them, with what callers wrote escaped."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}"


def escaped(value: str) -> str:
    """Backslash, quote and line feed must not end a label."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
