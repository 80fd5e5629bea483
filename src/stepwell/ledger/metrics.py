"""Counters and histograms in Prometheus' text format, under OpenTelemetry's gen_ai names where there are any."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from msgspec import Struct

from stepwell.ledger.entry import LARGE, Entry
from stepwell.types import Visit

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
EACH_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
OPERATIONS = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
PROVIDER = "stepwell"
"""Who provides where no engine does."""


class Metric(Struct, frozen=True):
    """One row of the table: OpenTelemetry's name where it has one, ours, and what is counted. Buckets: a histogram."""

    otel: str
    name: str
    help: str
    buckets: tuple[float, ...] = ()


# Names, boundaries and attributes are those of the semantic conventions for generative AI 1.37 (status: development),
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
DURATION = Metric("gen_ai.server.request.duration", "gen_ai_server_request_duration_seconds", "Whole request.", SECONDS)
ASKED = Metric(
    "gen_ai.client.operation.duration",
    "gen_ai_client_operation_duration_seconds",
    "Asking the large model, until its last byte.",
    SECONDS,
)
FIRST = Metric(
    "gen_ai.server.time_to_first_token",
    "gen_ai_server_time_to_first_token_seconds",
    "Until the first chunk of a stream.",
    FIRST_SECONDS,
)
EACH = Metric(
    "gen_ai.server.time_per_output_token",
    "gen_ai_server_time_per_output_token_seconds",
    "For each token of a stream after the first chunk.",
    EACH_SECONDS,
)
USED = Metric("gen_ai.client.token.usage", "gen_ai_client_token_usage", "Tokens of one request.", TOKENS)
REQUESTS = Metric("", "stepwell_requests_total", "Requests by the step that answered (none: no answer) and status.")
VISITS = Metric(
    "", "stepwell_visits_total", "Steps tried, by what came of it; the cache: answered or not is hit or miss."
)
USD = Metric("", "stepwell_usd_total", "USD spent.")
LARGE_USD = Metric(
    "", "stepwell_large_usd_total", "USD that the large model would have cost; less what was spent: saved."
)
REFUSED = Metric("", "stepwell_refused_total", "Requests that were not let in, by code and status.")
LOST = Metric("", "stepwell_ledger_lost_total", "Ledger entries lost because the disk refused them for too long.")
TABLE = (DURATION, ASKED, FIRST, EACH, USED, REQUESTS, VISITS, USD, LARGE_USD, REFUSED, LOST)

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

    __slots__ = ("asked", "duration", "each", "first", "inputs", "large_usd", "num", "outputs", "usd")

    def __init__(self) -> None:
        self.num, self.usd, self.large_usd = 0, 0.0, 0.0
        self.duration, self.asked = Histogram(SECONDS), Histogram(SECONDS)
        self.first, self.each = Histogram(FIRST_SECONDS), Histogram(EACH_SECONDS)
        self.inputs, self.outputs = Histogram(TOKENS), Histogram(TOKENS)

    def add(self, entry: Entry) -> None:
        """Count one request."""
        self.num += 1
        self.usd += entry.usd
        self.large_usd += entry.large_usd
        self.duration.add(entry.seconds)
        if not entry.step:
            return
        self.inputs.add(entry.input_tokens)
        self.outputs.add(entry.output_tokens)
        if entry.stream and entry.complete:
            self.first.add(entry.first_s)
            if entry.output_tokens > 1:
                self.each.add((entry.seconds - entry.first_s) / (entry.output_tokens - 1))


Told = tuple[str, str, str, str, int, str]
"""What tells one series from another: kind, model, engine, step, status, error."""


class Metrics:
    """All metrics of one process; told of every request in the event loop."""

    def __init__(self, worker: str = "") -> None:
        """`worker` tells this process from others behind the same port; empty where it is the only one."""
        self.about: Labels = (("worker", worker),) if worker else ()
        self.series: dict[Told, Series] = {}
        self.num_visits: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.num_refused: defaultdict[tuple[str, int], int] = defaultdict(int)

    def observe(self, entry: Entry, visits: tuple[Visit, ...]) -> None:
        """Count one request and the steps it visited."""
        told = (entry.kind, entry.model, entry.engine, entry.step, entry.status, entry.error)
        series = self.series.get(told)
        if series is None:
            series = self.series[told] = Series()
        series.add(entry)
        before_s = 0.0
        for visit in visits:
            self.num_visits[entry.model, visit.step, visit.verdict] += 1
            if visit.step == LARGE:
                series.asked.add(entry.seconds - before_s)
            before_s += visit.seconds

    def refused(self, code: str, status: int) -> None:
        """Count a request that was not let in."""
        self.num_refused[code, status] += 1

    def text(self, *, num_lost: int = 0) -> bytes:
        """Everything in Prometheus' text format, version 0.0.4; `num_lost` ledger entries were lost."""
        samples: dict[str, list[str]] = {metric.name: [] for metric in TABLE}
        for metric, labels, value in self.counted(num_lost):
            samples[metric.name] += lines(metric, (*labels, *self.about), value)
        text: list[str] = []
        for metric in TABLE:
            about = f"{metric.help} ({metric.otel})" if metric.otel else metric.help
            kind = "histogram" if metric.buckets else "counter"
            text += [f"# HELP {metric.name} {about}", f"# TYPE {metric.name} {kind}", *samples[metric.name]]
        return ("\n".join(text) + "\n").encode()

    def counted(self, num_lost: int) -> Iterator[tuple[Metric, Labels, float | Histogram]]:
        """All samples: metric, labels, value."""
        for told, series in list(self.series.items()):
            yield from samples_of(told, series)
        for (model, step, verdict), num in list(self.num_visits.items()):
            yield VISITS, (("gen_ai_request_model", model), ("stepwell_step", step), ("verdict", verdict)), num
        for (code, status), num in list(self.num_refused.items()):
            yield REFUSED, (("code", code), ("status", str(status))), num
        yield LOST, (), num_lost


def samples_of(told: Told, series: Series) -> Iterator[tuple[Metric, Labels, float | Histogram]]:
    """The samples of one series; a histogram that has seen nothing is left out."""
    kind, model, engine, step, status, error = told
    labels: Labels = (
        ("gen_ai_operation_name", OPERATIONS[kind]),
        ("gen_ai_provider_name", engine or PROVIDER),
        ("gen_ai_request_model", model),
        ("stepwell_step", step or "none"),
        ("status", str(status)),
        ("error_type", error),
    )
    yield REQUESTS, labels, series.num
    yield USD, labels, series.usd
    yield LARGE_USD, labels, series.large_usd
    histograms = (
        (DURATION, labels, series.duration),
        (ASKED, labels, series.asked),
        (FIRST, labels, series.first),
        (EACH, labels, series.each),
        (USED, (*labels, ("gen_ai_token_type", "input")), series.inputs),
        (USED, (*labels, ("gen_ai_token_type", "output")), series.outputs),
    )
    yield from (each for each in histograms if any(each[2].counts))


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
    """Labels as the format wants them, with what callers wrote escaped; an empty one is as good as none."""
    told = ",".join(f'{name}="{escaped(value)}"' for name, value in labels if value)
    return f"{{{told}}}" if told else ""


def escaped(value: str) -> str:
    """Backslash, quote and line feed must not end a label."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
