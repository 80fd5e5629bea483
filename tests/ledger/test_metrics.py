"""Metrics as Prometheus reads them, by its own parser and by the rules of its linter."""

from __future__ import annotations

import math
from collections import Counter
from urllib.request import urlopen

import pytest
from made import PRICE, settled
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from conftest import SCRIPTED, Start
from stepwell.errors import EngineTimeout
from stepwell.ledger.entry import entry
from stepwell.ledger.metrics import TABLE, Metrics
from stepwell.types import Settled, Usage


def watch(metrics: Metrics, told: Settled) -> None:
    metrics.observe(entry(told, PRICE, 0.0), told.outcome.visits)


def samples(metrics: Metrics, name: str) -> list[Sample]:
    families = text_string_to_metric_families(metrics.text().decode())
    return [sample for family in families for sample in family.samples if sample.name == name]


def test_metrics_can_be_read_by_prometheus() -> None:
    metrics = Metrics()
    seconds = [0.005, 0.03, 0.5, 100.0]
    for number, each in enumerate(seconds):
        watch(metrics, settled(number, seconds=each))
    watch(metrics, settled(step="cache"))
    watch(metrics, settled(step=""))
    metrics.refused('not"so\\nice\n', 401)
    families = {family.name: family for family in text_string_to_metric_families(metrics.text(num_lost=3).decode())}
    durations = families["gen_ai_server_request_duration_seconds"].samples
    large = [sample for sample in durations if sample.labels.get("stepwell_step") == "large"]
    assert [sample.value for sample in large if sample.name.endswith("_count")] == [4]
    assert math.isclose(next(sample.value for sample in large if sample.name.endswith("_sum")), sum(seconds))
    buckets = [sample.value for sample in large if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 4
    assert families["stepwell_refused"].samples[0].labels["code"] == 'not"so\\nice\n'
    assert families["stepwell_ledger_lost"].samples[0].value == 3
    tokens = families["gen_ai_client_token_usage"].samples
    assert {sample.labels["gen_ai_token_type"] for sample in tokens} == {"input", "output"}


def test_the_text_keeps_the_rules_of_the_linter() -> None:
    metrics = Metrics(worker="3")
    for told in (
        settled(0, stream=True),
        settled(1, step="cache"),
        settled(2, step="", error=EngineTimeout("too slow")),
        settled(3, stream=True, error=EngineTimeout("too slow")),
    ):
        watch(metrics, told)
    metrics.refused("invalid_api_key", 401)
    text = metrics.text().decode()
    assert text.endswith("\n")
    families = list(text_string_to_metric_families(text))
    assert [family.name for family in families] == [metric.name.removesuffix("_total") for metric in TABLE]
    assert all(family.documentation for family in families)
    assert {family.type for family in families} == {"histogram", "counter"}
    kept = [sample for family in families for sample in family.samples]
    assert all(sample.labels["worker"] == "3" for sample in kept)
    assert all(name == name.lower() for sample in kept for name in (sample.name, *sample.labels))
    again = Counter((sample.name, tuple(sorted(sample.labels.items()))) for sample in kept)
    assert set(again.values()) == {1}, "no series twice"
    assert all(sample.name.endswith(("_total", "_bucket", "_sum", "_count")) for sample in kept)


def test_a_name_of_opentelemetry_is_the_same_name_for_prometheus() -> None:
    for metric in TABLE:
        if metric.otel:
            assert metric.name.removesuffix("_seconds") == metric.otel.replace(".", "_")
            assert metric.buckets == tuple(sorted(set(metric.buckets)))


def test_visits_tell_hits_from_misses() -> None:
    metrics = Metrics()
    for step in ("cache", "cache", "large", ""):
        watch(metrics, settled(step=step))
    told = {
        (sample.labels["stepwell_step"], sample.labels["verdict"]): sample.value
        for sample in samples(metrics, "stepwell_visits_total")
    }
    assert told == {
        ("cache", "answered"): 2,
        ("cache", "deferred"): 2,
        ("large", "answered"): 1,
        ("large", "failed"): 1,
    }


def test_the_large_model_is_timed_without_the_steps_above_it() -> None:
    metrics = Metrics()
    watch(metrics, settled(seconds=0.5))
    watch(metrics, settled(step="cache", seconds=0.5))
    (asked,) = samples(metrics, "gen_ai_client_operation_duration_seconds_sum")
    assert asked.value == pytest.approx(0.499)
    assert asked.labels["gen_ai_provider_name"] == "up"


def test_only_whole_streams_have_a_first_token() -> None:
    metrics = Metrics()
    watch(metrics, settled())
    watch(metrics, settled(stream=True, error=EngineTimeout("too slow")))
    assert not samples(metrics, "gen_ai_server_time_to_first_token_seconds_count")
    watch(metrics, settled(stream=True, seconds=1.006, usage=Usage(1, 101)))
    watch(metrics, settled(stream=True, seconds=1.0, usage=Usage(1, 1)))
    (first,) = samples(metrics, "gen_ai_server_time_to_first_token_seconds_sum")
    (each,) = samples(metrics, "gen_ai_server_time_per_output_token_seconds_sum")
    assert first.value == pytest.approx(2 * 0.006)
    assert each.value == pytest.approx(0.01)


def test_errors_are_counted_by_their_code() -> None:
    metrics = Metrics()
    watch(metrics, settled(step="", error=EngineTimeout("too slow")))
    watch(metrics, settled(step=""))
    told = Counter(sample.labels["error_type"] for sample in samples(metrics, "stepwell_requests_total"))
    assert told == {"engine_timeout": 1, "caller_gone": 1}


def test_spent_and_large_add_up_to_what_was_saved() -> None:
    metrics = Metrics()
    for step in ("cache", "large", "cache"):
        watch(metrics, settled(step=step))
    spent = sum(sample.value for sample in samples(metrics, "stepwell_usd_total"))
    large = sum(sample.value for sample in samples(metrics, "stepwell_large_usd_total"))
    assert math.isclose(large, 3 * spent)


def test_workers_of_one_port_are_told_apart(serve: Start) -> None:
    gateway = serve(SCRIPTED.replace("port = 0", "port = 0\nworkers = 2"))
    with urlopen(gateway.url.removesuffix("/v1") + "/metrics") as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    (lost,) = next(family.samples for family in families if family.name == "stepwell_ledger_lost")
    assert lost.labels["worker"] in {"0", "1"}
