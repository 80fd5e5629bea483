"""The ledger: what an entry says, and that the book keeps it through whatever happens to the disk."""

from __future__ import annotations

import logging
import math
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from stepwell.errors import ConfigError, StoreError
from stepwell.ledger import prices
from stepwell.ledger.book import Book
from stepwell.ledger.entry import entry
from stepwell.ledger.metrics import Metrics
from stepwell.ledger.rollup import rollup, total
from stepwell.types import Answer, Caller, Outcome, Request, Settled, Usage, Visit

PRICES = prices.load()
USAGE = Usage(100, 50)
PRICE = prices.price_of(PRICES, "gpt-4o-mini")


def settled(
    number: int = 0,
    *,
    step: str = "large",
    tenant: str = "acme",
    seconds: float = 0.01,
    usage: Usage | None = USAGE,
) -> Settled:
    request = Request(
        id=f"req-{number}", kind="chat", caller=Caller(tenant, "p"), model="well", body=b"{}", canonical=b"{}"
    )
    visits = (
        Visit("cache", "answered" if step == "cache" else "deferred", "hit" if step == "cache" else "miss", 0.001),
    )
    if step != "cache":
        visits = (*visits, Visit("large", "answered" if step else "failed", "up", 0.005))
    answer = Answer(form="json", body=b"{}", usage=usage, engine="up") if step else None
    return Settled(
        request=request,
        outcome=Outcome(answer, visits),
        form="json",
        body=b"{}",
        usage=usage if step else None,
        complete=bool(step),
        status=200 if step else 502,
        seconds=seconds,
    )


def book(path: Path, **more: object) -> Book:
    wanted = {"flush_ms": 10, "max_waiting": 1000, "watch": lambda _entry: None, **more}
    return Book(path, {"well": PRICE}, **wanted)  # type: ignore[arg-type]


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM entries").fetchall()


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_large_model_costs_its_tokens_and_a_hit_costs_nothing(into: int, out: int) -> None:
    wanted = (into * PRICE.input_usd + out * PRICE.output_usd) / 1_000_000
    large = entry(settled(usage=Usage(into, out)), PRICE, 0.0)
    assert math.isclose(large.usd, wanted)
    assert math.isclose(large.large_usd, wanted)
    assert not large.large_estimated
    hit = entry(settled(step="cache", usage=Usage(into, out)), PRICE, 0.0)
    assert hit.usd == 0
    assert math.isclose(hit.large_usd, wanted)
    assert hit.large_estimated, "nobody audited what the large model would have said"


def test_a_request_without_an_answer_costs_nothing_and_says_where_it_failed() -> None:
    told = entry(settled(step=""), PRICE, 0.0)
    assert (told.step, told.engine, told.usd, told.large_usd, told.status, told.complete) == ("", "", 0, 0, 502, False)
    assert '"failed"' in told.visits


def test_prices_are_dated_sourced_and_found_by_what_they_stand_for() -> None:
    assert all(price.source.startswith("https://") and price.date for price in PRICES.models.values())
    assert prices.price_of(PRICES, "house-writer") == PRICE
    with pytest.raises(ConfigError, match="did you mean 'gpt-4o-mini'"):
        prices.price_of(PRICES, "gpt-4o-min")


def test_prices_of_your_own(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    text = 'date = 2026-01-01\ncpu_hour_usd = 0.1\ncpu_hour_source = "x"\n[models.m]\ninput_usd = 1.0\noutput_usd = 2.0\nsource = "x"\ndate = 2026-01-01\n'
    path.write_text(text)
    assert prices.load(str(path)).models["m"].output_usd == 2.0
    path.write_text(text.replace("output_usd", "output_us"))
    with pytest.raises(ConfigError, match=r"prices.toml:6: .*did you mean 'output_usd'"):
        prices.load(str(path))
    path.write_text(text + '[as]\nother = "mm"\n')
    with pytest.raises(ConfigError, match="has no price"):
        prices.load(str(path))


def test_what_is_recorded_is_there_after_the_flush_and_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.db"
    ledger = book(path)
    for number in range(1200):
        ledger.record(settled(number))
    ledger.close()
    assert len(rows(path)) == 1200


def test_a_second_book_on_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledgers = [book(path), book(path)]
    for number in range(400):
        ledgers[number % 2].record(settled(number))
        time.sleep(0.0002)
    for ledger in ledgers:
        ledger.close()
    assert len(rows(path)) == 400


CHILD = """
import sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from test_ledger import book, settled
ledger = book(Path(sys.argv[1]), flush_ms=50)
for number in range(10**9):
    ledger.record(settled(number))
    print(number, flush=True)
    time.sleep(0.001)
"""


def test_kill_9_loses_at_most_the_last_flush_interval(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    code = CHILD.format(path=[str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told: list[tuple[float, int]] = []
        for line in child.stdout:
            told.append((time.monotonic(), int(line)))
            if told[-1][0] - told[0][0] > 1.5:
                break
        killed_s = time.monotonic()
        child.send_signal(signal.SIGKILL)
        child.communicate()
    kept = {str(row[0]) for row in rows(path)}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    old = [number for at_s, number in told if killed_s - at_s > 1.0]
    assert len(old) > 50
    assert all(f"req-{number}" in kept for number in old)


def test_a_full_disk_keeps_entries_waiting_and_loses_only_what_is_too_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path, max_waiting=500, flush_ms=5)
    pages = ledger.database.execute("PRAGMA page_count").fetchone()[0]
    ledger.database.execute(f"PRAGMA max_page_count = {pages + 2}")
    with caplog.at_level(logging.ERROR):
        for number in range(900):
            ledger.record(settled(number))
        wait(lambda: ledger.refused)
        wait(lambda: ledger.num_dropped > 0)
    assert "entries wait in memory" in caplog.text
    ledger.database.execute("PRAGMA max_page_count = 1000000")
    wait(lambda: not ledger.refused)
    ledger.close()
    assert len(rows(path)) + ledger.num_dropped == 900


def test_a_damaged_ledger_is_moved_aside_never_overwritten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"rubbish" * 2000)
    ledger = book(path)
    ledger.record(settled())
    ledger.close()
    assert len(rows(path)) == 1
    (aside,) = tmp_path.glob("ledger.db.damaged-*")
    assert aside.read_bytes().startswith(b"rubbish")
    assert "begun anew" in caplog.text


def test_a_ledger_that_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"choose another ledger\.path"):
        book(tmp_path / "file" / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer Stepwell"):
        book(tmp_path / "new.db")


@given(st.lists(st.tuples(st.sampled_from(["cache", "large", ""]), st.floats(0, 10)), min_size=1, max_size=60))
def test_a_rollup_is_what_plain_python_says(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("rollup") / "ledger.db"
    ledger = book(path)
    for number, (step, seconds) in enumerate(told):
        ledger.record(settled(number, step=step, seconds=seconds))
    ledger.close()
    lines = {line.name: line for line in rollup(path, "step")}
    for step in {step for step, _ in told}:
        seconds = sorted(seconds for other, seconds in told if other == step)
        line = lines[step or "unanswered"]
        assert line.requests == len(seconds)
        assert line.p50_s == seconds[math.ceil(len(seconds) * 0.5) - 1]
        assert line.p99_s == seconds[math.ceil(len(seconds) * 0.99) - 1]
    everything = total(list(lines.values()))
    assert everything.requests == len(told)
    assert math.isclose(sum(line.share for line in lines.values()), 1.0)
    assert math.isclose(everything.saved_usd, everything.large_usd - everything.usd)


def test_rollups_by_tenant_model_and_day_and_since(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path)
    for number in range(10):
        ledger.record(settled(number, tenant="ab"[number % 2]))
    ledger.close()
    assert [(line.name, line.requests) for line in rollup(path, "tenant")] == [("a", 5), ("b", 5)]
    assert [line.name for line in rollup(path, "model")] == ["well"]
    assert [line.name for line in rollup(path, "day")] == [time.strftime("%Y-%m-%d", time.gmtime())]
    assert rollup(path, "step", time.time() + 60) == []
    with pytest.raises(StoreError, match="no ledger at"):
        rollup(tmp_path / "none.db", "step")


def test_metrics_can_be_read_by_prometheus() -> None:
    metrics = Metrics()
    seconds = [0.005, 0.03, 0.5, 100.0]
    for number, each in enumerate(seconds):
        metrics.observe(entry(settled(number, seconds=each), PRICE, 0.0))
    metrics.observe(entry(settled(step="cache"), PRICE, 0.0))
    metrics.observe(entry(settled(step=""), PRICE, 0.0))
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


def test_recording_is_cheap_enough_to_be_forgotten(tmp_path: Path) -> None:
    """No wall time: the number of calls into SQLite a request, which is what costs."""
    ledger = book(tmp_path / "ledger.db", flush_ms=100_000)
    statements: list[str] = []
    ledger.database.set_trace_callback(statements.append)
    for number in range(1000):
        ledger.record(settled(number))
    ledger.flush()
    inserts = [statement for statement in statements if statement.startswith("INSERT")]
    assert len(inserts) == 2
    ledger.stopping.set()
    ledger.close()


def wait(check: object) -> None:
    end_s = time.monotonic() + 10
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end_s
        time.sleep(0.01)
