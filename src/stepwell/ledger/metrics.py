"""Counters and histograms in Prometheus' text format, under OpenTelemetry's gen_ai names where there are any."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

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

    __slots__ = ("counts", "total")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0


class Metrics:
    """All metrics of one process. `observe` runs in the ledger's thread, `refused` in the event loop."""

    def __init__(self) -> None:
        self.sums: defaultdict[tuple[Metric, Labels], float] = defaultdict(float)
        self.histograms: dict[tuple[Metric, Labels], Histogram] = {}

    def observe(self, entry: Entry) -> None:
        """Count one request."""
        about = (
            ("gen_ai_operation_name", OPERATIONS[entry.kind]),
            ("gen_ai_request_model", entry.model),
            ("stepwell_step", entry.step or "none"),
        )
        failed = about if entry.complete else (*about, ("error_type", str(entry.status)))
        self.measure(DURATION, failed, entry.seconds)
        if entry.step:
            self.measure(FIRST, about, entry.first_s)
            self.measure(USED, (*about, ("gen_ai_token_type", "input")), entry.input_tokens)
            self.measure(USED, (*about, ("gen_ai_token_type", "output")), entry.output_tokens)
        self.sums[REQUESTS, (*about, ("status", str(entry.status)))] += 1
        self.sums[USD, about] += entry.usd
        self.sums[LARGE_USD, about] += entry.large_usd

    def refused(self, code: str, status: int) -> None:
        """Count a request that was not let in."""
        self.sums[REFUSED, (("code", code), ("status", str(status)))] += 1

    def measure(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add one value to a histogram."""
        histogram = self.histograms.get((metric, labels))
        if histogram is None:
            histogram = self.histograms[metric, labels] = Histogram(metric.buckets)
        histogram.counts[bisect_left(metric.buckets, value)] += 1
        histogram.total += value

    def text(self, *, num_lost: int = 0) -> bytes:
        """Everything in Prometheus' text format, version 0.0.4; `num_lost` ledger entries were lost."""
        self.sums[LOST, ()] = num_lost
        lines: list[str] = []
        for metric in TABLE:
            about = f"{metric.help} ({metric.otel})" if metric.otel else metric.help
            lines.append(f"# HELP {metric.name} {about}")
            lines.append(f"# TYPE {metric.name} {'histogram' if metric.buckets else 'counter'}")
            lines.extend(self.samples(metric))
        return ("\n".join(lines) + "\n").encode()

    def samples(self, metric: Metric) -> Iterator[str]:
        """The lines of one metric."""
        for (of, labels), value in list(self.sums.items()):
            if of is metric:
                yield f"{metric.name}{written(labels)} {value!r}"
        for (of, labels), histogram in list(self.histograms.items()):
            if of is not metric:
                continue
            seen = 0
            for bound, count in zip((*map(repr, map(float, metric.buckets)), "+Inf"), histogram.counts, strict=True):
                seen += count
                yield f"{metric.name}_bucket{written((*labels, ('le', bound)))} {seen}"
            yield f"{metric.name}_sum{written(labels)} {histogram.total!r}"
            yield f"{metric.name}_count{written(labels)} {seen}"


def written(labels: Labels) -> str:
    """Labels as the format wants them, with what callers wrote escaped."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}"


def escaped(value: str) -> str:
    """Backslash, quote and line feed must not end a label."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
