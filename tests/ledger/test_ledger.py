"""The ledger: what an entry says, and that the book keeps it through whatever happens to the disk."""

from __future__ import annotations

import asyncio
import math
import resource
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
from made import PRICE, PRICES, asides, book, rows, settled, wait, write

from stepwell.errors import ConfigError, StoreError
from stepwell.ledger import prices
from stepwell.ledger.entry import entry
from stepwell.ledger.rollup import rollup, total
from stepwell.types import Usage


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
    assert (told.step, told.engine, told.usd, told.large_usd, told.status, told.complete) == ("", "", 0, 0, 502, 0)
    assert not told.large_estimated, "nothing was answered, so nothing is estimated"
    assert '"failed"' in told.visits


def test_prices_are_dated_sourced_and_found_by_what_they_stand_for() -> None:
    assert all(price.source.startswith("https://") and price.date for price in PRICES.models.values())
    assert prices.price_of(PRICES, "house-writer") == PRICE
    with pytest.raises(ConfigError, match="did you mean 'gpt-4o-mini'"):
        prices.price_of(PRICES, "gpt-4o-min")


ROW = '[models.m]\ninput_usd = 1.0\noutput_usd = 2.0\nsource = "x"\ndate = 2026-01-01\n'


def test_prices_of_your_own_lie_over_those_that_ship(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(ROW + ROW.replace("models.m", "models.house-writer"))
    own = prices.load(str(path))
    assert own.models["m"].output_usd == 2.0
    assert own.models["gpt-4o"] == PRICES.models["gpt-4o"]
    assert own.cpu_hour_usd == PRICES.cpu_hour_usd
    assert prices.price_of(own, "house-writer").output_usd == 2.0, "a row of one's own goes before what it stands for"
    path.write_text("cpu_hour_usd = 0.0\n" + ROW + '[as]\nhouse-writer = "m"\n')
    own = prices.load(str(path))
    assert (own.cpu_hour_usd, own.cpu_hour_source) == (0.0, "the operator")
    assert prices.price_of(own, "house-writer").output_usd == 2.0


def test_prices_that_are_wrong_say_where(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(ROW.replace("output_usd", "output_us"))
    with pytest.raises(ConfigError, match=r"prices.toml:3: .*did you mean 'output_usd'"):
        prices.load(str(path))
    path.write_text(ROW.replace("2.0", "-2.0"))
    with pytest.raises(ConfigError, match=r"prices.toml:3: "):
        prices.load(str(path))
    path.write_text(ROW + '[as]\nother = "mm"\n')
    with pytest.raises(ConfigError, match=r"has no price; did you mean 'm'"):
        prices.load(str(path))
    with pytest.raises(ConfigError, match=r"cannot be read .*ledger\.prices"):
        prices.load(str(tmp_path / "none.toml"))


async def test_what_is_recorded_is_there_after_the_flush_and_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.db"
    ledger = book(path, max_waiting=2000)
    for number in range(1200):
        ledger.record(settled(number))
    await ledger.close()
    assert len(rows(path)) == 1200


async def test_a_second_book_on_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledgers = [book(path), book(path)]
    for number in range(400):
        ledgers[number % 2].record(settled(number))
        await asyncio.sleep(0.0002)
    for ledger in ledgers:
        await ledger.close()
    assert len(rows(path)) == 400


CHILD = """
import asyncio, sys
sys.path[:0] = {path!r}
from pathlib import Path
from made import book, settled
async def main():
    ledger = book(Path(sys.argv[1]), flush_ms=50)
    for number in range(10**9):
        ledger.record(settled(number))
        print(number, flush=True)
        await asyncio.sleep(0.001)
asyncio.run(main())
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


async def test_a_full_disk_keeps_entries_waiting_and_loses_only_what_is_too_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.db"
    ledger = book(path, max_waiting=500, flush_ms=5)
    ledger.record(settled(-1))
    await wait(lambda: rows(path))
    assert ledger.pipe.process is not None
    limits = resource.prlimit(ledger.pipe.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for number in range(900):
        ledger.record(settled(number))
    assert ledger.num_lost() == 400
    await wait(lambda: ledger.refused)
    assert "entries wait in memory" in caplog.text
    resource.prlimit(ledger.pipe.process.pid, resource.RLIMIT_FSIZE, limits)
    await wait(lambda: not ledger.refused)
    await ledger.close()
    assert len(rows(path)) + ledger.num_dropped == 901


async def test_a_damaged_ledger_is_moved_aside_never_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"rubbish" * 2000)
    ledger = book(path)
    ledger.record(settled())
    await ledger.close()
    assert len(rows(path)) == 1
    (aside,) = asides(path)
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
    write(path, *(settled(number, step=step, seconds=seconds) for number, (step, seconds) in enumerate(told)))
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
    write(path, *(settled(number, tenant="ab"[number % 2]) for number in range(10)))
    assert [(line.name, line.requests) for line in rollup(path, "tenant")] == [("a", 5), ("b", 5)]
    assert [line.name for line in rollup(path, "model")] == ["well"]
    assert [line.name for line in rollup(path, "day")] == [time.strftime("%Y-%m-%d", time.gmtime())]
    assert rollup(path, "step", time.time() + 60) == []
    with pytest.raises(StoreError, match="no ledger at"):
        rollup(tmp_path / "none.db", "step")


def test_a_rollup_by_step_counts_those_who_came_by(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    write(path, *(settled(number, step=step) for number, step in enumerate(("cache", "cache", "large", ""))))
    lines = rollup(path, "step")
    assert [(line.name, line.visits, line.requests, line.failed) for line in lines] == [
        ("cache", 4, 2, 0),
        ("large", 2, 1, 0),
        ("unanswered", 0, 1, 1),
    ]
    assert [line.saved_share for line in lines] == [1.0, 0.0, 0.0]
    assert [line.estimated_share for line in lines] == [1.0, 0.0, 0.0]
    assert total(lines).saved_share == pytest.approx(2 / 3)


def test_a_rollup_takes_steps_it_does_not_know_and_paths_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "100% ?mode=x#y" / "ledger.db"
    write(path, settled(step="large"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE entries SET step = 'oracle'")
    assert [line.name for line in rollup(path, "step")] == ["oracle"]
    (tmp_path / "text.db").write_text("no ledger at all, but a text that goes on for a while" * 20)
    with pytest.raises(StoreError, match="cannot be read"):
        rollup(tmp_path / "text.db", "step")
